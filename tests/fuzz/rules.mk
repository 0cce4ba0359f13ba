# Fuzzing. `make fuzz` needs clang: the C sources under libFuzzer, ASan and UBSan, the kernels as they
# are. `make fuzz-replay` runs the stored inputs through the objects of the normal build.
FUZZ_TARGETS = $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SOURCES = $(C_SOURCES) $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_SAN = -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_CFLAGS = $(filter-out -fopenmp -Werror,$(CFLAGS_ALL)) -O1 -w $(FUZZ_SAN)
SECONDS ?= 60
.PHONY: fuzz fuzz-replay

fuzz: setup-done ## every input parser under libFuzzer, SECONDS=60 each; KEEP=1 stores new inputs
	@$(MAKE) --no-print-directory $(FUZZ_TARGETS:%=$(BUILD)/fuzz/%)
	@for t in $(FUZZ_TARGETS); do mkdir -p $(BUILD)/fuzz/new/$$t && \
	    $(BUILD)/fuzz/$$t -max_total_time=$(SECONDS) -max_len=8192 -timeout=10 -verbosity=0 -print_final_stats=1 \
	        -artifact_prefix=$(BUILD)/fuzz/$$t- $(BUILD)/fuzz/new/$$t tests/fuzz/corpus/$$t >$(BUILD)/fuzz/$$t.log 2>&1 || \
	        { tail -30 $(BUILD)/fuzz/$$t.log; exit 1; }; \
	    echo "$$t: $$(sed -n 's/stat::number_of_executed_units: *//p' $(BUILD)/fuzz/$$t.log) executions, no failure"; \
	    $(if $(KEEP),$(BUILD)/fuzz/$$t -merge=1 tests/fuzz/corpus/$$t $(BUILD)/fuzz/new/$$t >/dev/null 2>&1;) done

fuzz-replay: $(BUILD)/fuzz-replay ## the stored inputs of the fuzz targets
	@$< $(wildcard tests/fuzz/corpus/*/*)

$(BUILD)/fuzz-replay: $(BUILD)/tests/fuzz/main.o $(patsubst %,$(BUILD)/tests/fuzz/fuzz_%.o,$(FUZZ_TARGETS)) $(OBJECTS)
	$(Q) $(CXX) -o $@ $^ $(LDLIBS)
$(BUILD)/fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(Q) clang $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link -c -o $@ $<
$(FUZZ_TARGETS:%=$(BUILD)/fuzz/%): $(BUILD)/fuzz/%: tests/fuzz/main.c $(FUZZ_SOURCES:%.c=$(BUILD)/fuzz/%.o) $(filter-out $(C_SOURCES:%.c=$(BUILD)/%.o),$(OBJECTS))
	$(Q) clang $(FUZZ_CFLAGS) -DFUZZ=fuzz_$* -fsanitize=fuzzer -o $@ $< $(filter %.o,$^) $(filter-out -fopenmp,$(LDLIBS)) -lgomp
