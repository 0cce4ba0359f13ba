/* recorded - what a run stored, held against the reference: stage by stage, every rank on the
 * operands that it recorded. What nobody recorded is computed on the way, with the roundings
 * that its producer is known to make, so that a stage behind it is judged as the end of a span. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RECORDED_H
#define HARNESS_RECORDED_H

#include "fixtures/fixture.h"
#include "fixtures/recording.h"
#include "fixtures/weights.h"
#include "harness/findings.h"
#include "harness/run.h"
#include "layer/producers.h"

struct recorded_source {
    struct fixture *fixture; /* an HDF5 file of docs/fixtures.md in the place of a recording; NULL: none */
    struct recording *recording;
    struct weights *weights; /* NULL: none; what needs them is not judged */
    struct producer producer;
    const bool *only;    /* [S_COUNT] the stages to be judged; NULL: all */
    double most_work;    /* multiply-adds of a step up to which all of its tokens are judged */
    struct watch *watch; /* NULL: nobody */
};
/* One part of one layer, all steps and ranks, into result: a row a stage, whose oracle edge is
 * judged, or that says why not. A rank's tensor that is a copy of another, or of another rank's,
 * has to have its bits; the sum over the ranks is judged on all their inputs. */
struct status recorded_case(const struct recorded_source *source, const struct check_case *c,
                            struct case_result *result);

/* Was anything but copies held against what is right? */
bool recorded_any_judged(const struct case_result *result);

/* All cases of a request that judges, in this process; as run_cases. */
struct status recorded_cases(const struct run_request *request, struct run_output *out);

#endif
