/* A genuine file that lacks any one of its activations: is everything else in it still right? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <hdf5.h>

#include "harness/cli/options.h"
#include "harness/run.h"
#include "tests/folder.h"

TestSuite(oracle_gaps, .init = folder_enter, .fini = folder_leave);

enum { MOST = 100 };
static char names[MOST][100];
static int n_names;

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *unused) {
    (void)group, (void)info, (void)unused;
    cr_assert(n_names < MOST);
    snprintf(names[n_names++], sizeof names[0], "activations/%s", name);
    return 0;
}

static void expect_no_failure(const char *without) {
    char *argv[] = {"shardcheck", "judge", "copy.h5", "--in-process"};
    struct options o;
    struct run_output out;
    struct status s = options_parse(4, argv, &o);
    cr_assert(!s.code, "without %s: %s", without, s.message);
    s = run_cases(&o.run, &out);
    cr_assert(!s.code, "without %s: %s", without, s.message);
    cr_expect(out.result.n_passed > 0 && !out.result.n_failed, "without %s: %lld passed, %lld failed",
              without, (long long)out.result.n_passed, (long long)out.result.n_failed);
    run_output_free(&out);
    options_free(&o);
}

static void expect_each_can_go(const char *family) {
    char command[200];
    snprintf(command, sizeof command, "cp \"$ROOT/fixtures/golden/%s.h5\" whole.h5 && chmod u+w whole.h5",
             family);
    cr_assert_eq(system(command), 0);
    hid_t file = H5Fopen("whole.h5", H5F_ACC_RDONLY, H5P_DEFAULT),
          group = H5Gopen2(file, "activations", H5P_DEFAULT);
    n_names = 0;
    cr_assert(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, add_name, NULL) >= 0 && n_names > 20);
    H5Gclose(group), H5Fclose(file);
    for (int i = 0; i < n_names; i++) {
        cr_assert_eq(system("cp whole.h5 copy.h5"), 0);
        file = H5Fopen("copy.h5", H5F_ACC_RDWR, H5P_DEFAULT);
        cr_assert(H5Ldelete(file, names[i], H5P_DEFAULT) >= 0, "%s", names[i]);
        H5Fclose(file);
        expect_no_failure(names[i]);
    }
}

Test(oracle_gaps, of_param2moe) { expect_each_can_go("param2moe"); }
Test(oracle_gaps, of_llama) { expect_each_can_go("llama"); }
Test(oracle_gaps, of_mixtral) { expect_each_can_go("mixtral"); }
Test(oracle_gaps, of_qwen3_moe) { expect_each_can_go("qwen3_moe"); }
