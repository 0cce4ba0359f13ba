# shardcheck. `make help` lists the targets; BUILD= chooses another build folder. SANITIZE=1: an ASan + UBSan build,
# without CUDA objects.
BUILD ?= build
PREFIX ?= /usr/local
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(NVCC))
NVCC_OK := $(if $(SANITIZE),,$(shell v=$$("$(NVCC)" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1\2/p'); [ "$${v:-0}" -ge 124 ] && echo 1))
VERSION := 0.1.0
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1)
endif

PKG = hdf5 jansson zlib
# OpenMP threads that wait by spinning slow a machine that has other work
export OMP_WAIT_POLICY ?= passive
WARN = -Wall -Wextra -Wshadow -Werror
ARCH := $(if $(shell grep -qw avx2 /proc/cpuinfo 2>/dev/null && echo y),-march=x86-64-v3 -mtune=native)
# A sanitized build is run once and a report needs lines, not variables: what the compiler saves is worth more
# than speed. Of instrumented code gcc believes what is not so.
OPTIMISE := $(if $(SANITIZE),-g1 -O1 -Wno-restrict -Wno-format-truncation,-g -O2)
COMMON = -I. $(WARN) $(OPTIMISE) -ffp-contract=off -fopenmp -MMD -MP -DSHARDCHECK_VERSION='"$(VERSION)"'
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE $(COMMON) -Wconversion -Wno-sign-conversion -isystem $(RANDOM123) \
             $(if $(PKG),$(shell pkg-config --cflags $(PKG) | sed 's/-I/-isystem /g')) $(SAN) $(CFLAGS)
# Places in headers are named kernels/.., as those in the file that is compiled.
CXXFLAGS_ALL = -std=c++17 $(COMMON) $(if $(SANITIZE),,-O3) $(ARCH) -Wno-psabi -fmacro-prefix-map=./= $(SAN) $(CXXFLAGS)
# ptxas says C75xx when it serialises wgmma or ignores setmaxnreg: an "info" that fails the build here.
NVCCFLAGS = -std=c++17 -I. -O3 -lineinfo --Werror all-warnings -MMD -MP -Xcompiler -Wall \
            -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a
LDLIBS = $(if $(PKG),$(shell pkg-config --libs $(PKG))) -lm -lpthread -fopenmp -lstdc++ $(SAN)
RANDOM123 = /usr/include
SAN := $(if $(SANITIZE),-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)

RACE_FLAGS = -DSIMT_RACE -ffile-prefix-map=$(CURDIR)=.

C_SOURCES = $(filter-out harness/cli/main.c,$(wildcard layer/*.c reference/*.c kernels/*.c fixtures/*.c harness/*.c harness/cli/*.c harness/worker/*.c harness/mutants/*.c reports/*.c kernels/device/*.c kernels/reference/*.c))
CXX_SOURCES = $(wildcard kernels/device/*.cpp kernels/simt/*/*.cpp)
CUDA_SOURCES = $(wildcard kernels/device/*_cuda.cu)
CU_SOURCES = $(wildcard kernels/attention/*.cu kernels/moe/*.cu kernels/dense/*.cu kernels/reference/*.cu) kernels/device/elementary.cu
CAMPAIGN = $(filter-out %/campaign.c,$(wildcard tests/campaign/*.c))
TESTS = $(wildcard tests/test_*.c) $(filter-out %_record.c,$(wildcard tests/kernels/*.c)) $(CAMPAIGN)
CONFORMANCE = $(BUILD)/tests/kernels/conformance
TEST_CU = $(wildcard tests/kernels/*.cu)
OBJECTS = $(C_SOURCES:%.c=$(BUILD)/%.o) $(CXX_SOURCES:%.cpp=$(BUILD)/%.o) $(CU_SOURCES:%.cu=$(BUILD)/%.host.o) $(BUILD)/presets.o $(BUILD)/gallery.o
ifeq ($(NVCC_OK),1)
OBJECTS += $(CU_SOURCES:%.cu=$(BUILD)/%.cuda.o) $(CUDA_SOURCES:%.cu=$(BUILD)/%.cuda.o)
COMMON += -DSHARDCHECK_CUDA=1
# cuBLAS is opened by the kernel that calls it (kernels/dense/linear_cublas.cu); the rpath is for it.
LDLIBS += -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt
endif

Q = $(if $(V),,@echo '  $(if $(filter %.cu,$<),$(if $(filter %.cuda.o,$@),nvcc,simt),cc)   $(or $(filter %.c %.cpp %.cu,$<),$@)';)

all: $(BUILD)/shardcheck ## build the binary (build/shardcheck)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  /p' $(MAKEFILE_LIST) | awk '{n=$$2; $$1=$$2=""; printf "  make %-12s%s\n", n, $$0}'

FAULTS = kernels limits writes shrink
setup-done: ; @./setup
.PHONY: all help setup-done verify test sanitize schedules race bugs mutants faults $(FAULTS:%=faults-%) campaign arm bench grid python-test layers format install clean

verify: setup-done ## set up, build and run the default check (Param2-17B, every legal tp)
	@$(MAKE) --no-print-directory all && $(BUILD)/shardcheck run

test: setup-done ## set up, build and run every test
	@$(MAKE) --no-print-directory $(BUILD)/shardcheck-tests $(BUILD)/shardcheck && SHARDCHECK=$(abspath $(BUILD))/shardcheck $(BUILD)/shardcheck-tests $(TESTFLAGS)

sanitize: setup-done ## the tests and preset tiny under ASan + UBSan
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan SANITIZE=1 $(BUILD)-asan/shardcheck $(BUILD)-asan/shardcheck-tests
	@ASAN_OPTIONS=detect_leaks=0 SHARDCHECK=$(abspath $(BUILD))-asan/shardcheck $(BUILD)-asan/shardcheck-tests $(TESTFLAGS)
	@$(BUILD)-asan/shardcheck run tiny --no-grid

# The kernels that run on the host only when named: one run each in attention, one with both in the ffn.
NAMED_ATTENTION = attention=attention_mma attention=attention_wgmma qkv_proj=grouped_gemm_wgmma
NAMED_FFN = --kernel gate_up_act=gated_gemm_wgmma --kernel down=grouped_gemm_wgmma
# $(call run_named,BINARY,OPTIONS of the attention part,OPTIONS of the ffn part,OPTIONS of decode)
run_named = for kernel in $(NAMED_ATTENTION); do \
    $1 run param2-17b --part attention --tp 8 $2 --kernel $$kernel || exit; done; \
    $1 run param2-17b/attention:tp=8,phase=decode,tokens=2,cached=300,kernel.attention=attention_decode_mma $4 || exit; \
    $1 run tiny --part ffn --tp 1,4 $3 $(NAMED_FFN)

race: setup-done ## the kernels under the race detector
	@$(MAKE) --no-print-directory $(BUILD)/race/shardcheck $(BUILD)/race/shardcheck-tests
	@SHARDCHECK=$(abspath $(BUILD))/race/shardcheck $(BUILD)/race/shardcheck-tests --filter 'race/*'
	@$(BUILD)/race/shardcheck run tiny --phase prefill,chunked,decode
	@$(call run_named,$(BUILD)/race/shardcheck,--tokens 9)

schedules: all ## every kernel under seeded thread orders and copy timings: the same bits
	@$(BUILD)/shardcheck run tiny --schedules 12 --phase prefill,chunked,decode --tp 1,4
	@$(call run_named,$(BUILD)/shardcheck,--tokens 70 --schedules 12,--schedules 12,--schedules 12)

bugs: setup-done ## every seeded kernel bug is caught, the kernels without are clean (ONLY=WORD: some rows)
	@BUILD=$(BUILD) MAKE='$(MAKE)' tests/kernels/bugs/check '$(ONLY)'

mutants: all ## every known mistake is caught where it shows and nowhere else; the score may only rise
	@BUILD=$(BUILD) tests/mutants/check

# Beside each other, for they mostly wait; what each said comes at its end, whole.
faults: all $(BUILD)/faults/shardcheck ## outputs that fail, kernels that crash and hang, too little of everything: the run says so
	@$(MAKE) --no-print-directory -k -Otarget $(FAULTS:%=faults-%)
$(FAULTS:%=faults-%): faults-%:
	@echo "tests/faults/$*:"; BUILD=$(BUILD) tests/faults/$*

bench: all $(BUILD)/bench/bounds ## what the bounds cost, and the kernels on the host device
	@$(BUILD)/bench/bounds
	@$(BUILD)/shardcheck bench

grid: $(BUILD)/bench/grid ## propose lines for fixtures/gallery (LINES=8): what the grid does not show yet
	@$(BUILD)/bench/grid $(LINES)

campaign: $(BUILD)/campaign ## honest kernels for MINUTES, emulated and real, in random cases: no bound may call one wrong
	@$(BUILD)/campaign $(or $(MINUTES),3) $(CAMPAIGNFLAGS)

arm: $(BUILD)/conformance_record ## the executor cross-built for 64-bit Arm, under qemu-user: the same bits
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-arm CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ ARCH= NVCC= PKG= $(BUILD)-arm/conformance_record
	@qemu-aarch64 -L /usr/aarch64-linux-gnu $(BUILD)-arm/conformance_record host | tail -n +2 >$(BUILD)-arm/bits
	@$(BUILD)/conformance_record host | tail -n +2 | cmp - $(BUILD)-arm/bits && echo "arm: $$(wc -l <$(BUILD)-arm/bits) cases, the same bits as on this machine"

PYTHON ?= python3
python-test: ## the tests of python/shardcheck, where torch is installed (PYTHON=venv/bin/python)
	@for package in torch safetensors transformers; do \
	    $(PYTHON) -c "import $$package" 2>/dev/null || { echo "python-test: skipped: $$package is not installed"; exit 0; }; done; \
	    $(PYTHON) -W ignore -m unittest discover -s tests/python

layers: ## check who includes whom
	@scripts/layers

format: ## apply .clang-format
	@clang-format -i $$(git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp')

install: all ## copy the binary to PREFIX/bin, its manual page and shell completion to PREFIX/share
	@install -Dm755 $(BUILD)/shardcheck $(DESTDIR)$(PREFIX)/bin/shardcheck
	@for f in man:man/man1/shardcheck.1 bash:bash-completion/completions/shardcheck zsh:zsh/site-functions/_shardcheck; do \
	    $(BUILD)/shardcheck generate $${f%%:*} >$(BUILD)/generated && \
	    install -Dm644 $(BUILD)/generated $(DESTDIR)$(PREFIX)/share/$${f#*:} || exit 1; done

clean: ## remove the build folders
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-arm

$(BUILD)/shardcheck: $(BUILD)/harness/cli/main.o $(OBJECTS)
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
$(BUILD)/shardcheck-tests: $(TESTS:%.c=$(BUILD)/%.o) $(TEST_CU:%.cu=$(BUILD)/%.host.o) $(OBJECTS) | $(BUILD)/shardcheck
	$(Q) $(CXX) -o $@ $(filter %.o,$^) $(LDLIBS) -lcriterion
$(BUILD)/campaign: $(BUILD)/tests/campaign/campaign.o $(CAMPAIGN:%.c=$(BUILD)/%.o) $(OBJECTS)
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
$(BUILD)/faults/shardcheck: $(BUILD)/harness/cli/main.o $(OBJECTS) $(BUILD)/tests/faults/kernels.o $(BUILD)/tests/faults/kernels_simt.host.o
	@mkdir -p $(@D)
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
# Once more for the race detector: the kernels, their executor, and the clock that has to wait for them. The rest
# is the plain build's.
WATCHED = $(addprefix $(BUILD)/,$(CXX_SOURCES:%.cpp=%.o) $(CU_SOURCES:%.cu=%.host.o) $(TEST_CU:%.cu=%.host.o) harness/worker/limits.o)
watched = $(filter-out $(WATCHED),$1) $(patsubst $(BUILD)/%,$(BUILD)/race/%,$(filter $(WATCHED),$1))
$(BUILD)/race/shardcheck: $(BUILD)/harness/cli/main.o $(call watched,$(OBJECTS))
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
$(BUILD)/race/shardcheck-tests: $(TESTS:%.c=$(BUILD)/%.o) $(call watched,$(TEST_CU:%.cu=$(BUILD)/%.host.o) $(OBJECTS)) | $(BUILD)/race/shardcheck
	$(Q) $(CXX) -o $@ $^ $(LDLIBS) -lcriterion
# The kernels of a lane's rows with all their mistakes, of which a run makes the one that SHARDCHECK_BUG names.
# $(call seeded,LANE,OBJECTS)
rows = $(shell awk '$$3 == "$1" { print $$2 }' tests/kernels/bugs/table | sort -u)
seeded = $(filter-out $(patsubst %.cu,$(BUILD)/%.host.o,$(call rows,$1)),$(OBJECTS)) $(BUILD)/tests/kernels/bugs/chosen.o
SEEDED_FLAGS = -g1 -O1 -DSEEDED_AT_RUN
LANE = $(if $(SANITIZE),asan,run)
$(BUILD)/bugs/shardcheck: $(BUILD)/harness/cli/main.o $(call seeded,$(LANE)) $(patsubst %.cu,$(BUILD)/bugs/%.host.o,$(call rows,$(LANE)))
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
$(BUILD)/race/bugs/shardcheck: $(BUILD)/harness/cli/main.o $(call watched,$(call seeded,race)) $(patsubst %.cu,$(BUILD)/race/bugs/%.host.o,$(call rows,race))
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(OBJECTS)
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
$(BUILD)/conformance_record: $(CONFORMANCE)_record.o $(CONFORMANCE)_cases.o $(CONFORMANCE).host.o $(if $(NVCC_OK),$(CONFORMANCE).cuda.o) \
    $(filter $(BUILD)/kernels/device/% $(BUILD)/kernels/simt/% $(BUILD)/layer/status.o $(BUILD)/layer/line.o $(BUILD)/layer/dtype.o $(BUILD)/layer/copy.o,$(OBJECTS))
	$(Q) $(CXX) -o $@ $^ $(filter-out -lhdf5 -ljansson -lz,$(LDLIBS))
# The bits of the CPU's loops.
$(BUILD)/kernels/reference/%.cuda.o: NVCCFLAGS += -fmad=false
$(BUILD)/layer/dtype.o $(BUILD)/fixtures/fill.o $(BUILD)/reference/%.o: CFLAGS_ALL += -O3 $(ARCH)
$(BUILD)/tests/%.o: CFLAGS_ALL += -O1
# What objects are made with; written only when that changes, and then all of them are made again. `:=`
# because a reference object's own CFLAGS_ALL would reach its prerequisites.
FLAGS := $(CC) $(CFLAGS_ALL) $(CXX) $(CXXFLAGS_ALL) $(NVCC) $(NVCCFLAGS) $(LDLIBS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@{ echo '$(FLAGS)'; $(CC) --version; $(CXX) --version; "$(NVCC)" --version; } >$@.now 2>/dev/null; \
	    if cmp -s $@.now $@; then rm $@.now; else mv $@.now $@; fi
FORCE:
define compile_c
	@mkdir -p $(@D)
	$(Q) $(CC) $(CFLAGS_ALL) -c -o $@ $<
endef
define compile_cpp
	@mkdir -p $(@D)
	$(Q) $(CXX) $(CXXFLAGS_ALL) -c -o $@ $<
endef
$(BUILD)/%.o: %.c $(BUILD)/flags ; $(compile_c)
define compile_simt
	@mkdir -p $(@D)
	$(Q) $(CXX) -x c++ $(CXXFLAGS_ALL) $1 -c -o $@ $<
endef
$(BUILD)/%.o: %.cpp $(BUILD)/flags ; $(compile_cpp)
$(BUILD)/%.host.o: %.cu $(BUILD)/flags ; $(compile_simt)
$(BUILD)/bugs/%.host.o: %.cu $(BUILD)/flags ; $(call compile_simt,$(SEEDED_FLAGS))
# What the compiler makes of array copies must be seen by the detector too.
define compile_watched
	$(call compile_simt,$1 -O1 -fsanitize=thread)
	@objcopy $(foreach f,memcpy memmove memset,--redefine-sym $f=__tsan_$f) $@
endef
$(BUILD)/race/%.host.o: %.cu $(BUILD)/flags ; $(compile_watched)
$(BUILD)/race/bugs/%.host.o: %.cu $(BUILD)/flags ; $(call compile_watched,$(SEEDED_FLAGS))
$(BUILD)/race/%.o: CFLAGS_ALL += $(RACE_FLAGS)
$(BUILD)/race/%.o: CXXFLAGS_ALL += $(RACE_FLAGS)
$(BUILD)/race/%.o: %.cpp $(BUILD)/flags ; $(compile_cpp)
$(BUILD)/race/%.o: %.c $(BUILD)/flags ; $(compile_c)
$(BUILD)/%.cuda.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q) $(NVCC) $(NVCCFLAGS) -c -o $@ $< >$@.log 2>&1 && ! grep -q '(C75' $@.log || { cat $@.log; rm -f $@; exit 1; }
$(BUILD)/presets.c: $(wildcard fixtures/models/*.json) fixtures/embed
	@mkdir -p $(@D)
	fixtures/embed $(wildcard fixtures/models/*.json) > $@
$(BUILD)/gallery.c: fixtures/gallery
	@mkdir -p $(@D)
	@{ echo '#include "fixtures/gallery.h"'; echo 'const char *const gallery[] = {'; \
	    sed -n 's/^[^#].*/    "&",/p' $<; echo '    0};'; } > $@
$(BUILD)/presets.o $(BUILD)/gallery.o: %.o: %.c $(BUILD)/flags
	$(Q) $(CC) $(CFLAGS_ALL) -c -o $@ $<

include tests/fuzz/rules.mk

.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
