/* tensor_map - tensor maps as the driver encodes them. The driver's function is looked up at run
 * time, so that nothing links against libcuda. */
/* SPDX-License-Identifier: MIT */
#include <cuda.h>
#include <cuda_runtime.h>
#include <string.h>

#include "kernels/lang/tensor_map.h"

static_assert(sizeof(CUtensorMap) == sizeof(struct tensor_map), "tensor_map holds a CUtensorMap");

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static encode_function find_encode() {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                               cudaEnableDefault, &result);
#else
    const cudaError_t error =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &result);
#endif
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) {
        (void)cudaGetLastError();
        return nullptr;
    }
    return reinterpret_cast<encode_function>(function);
}

static const CUtensorMapDataType types[] = {/* by tensor_map_element */
                                            CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                                            CU_TENSOR_MAP_DATA_TYPE_FLOAT32};
static const CUtensorMapSwizzle swizzles[] = {/* by shared_swizzle */
                                              CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                              CU_TENSOR_MAP_SWIZZLE_64B};

extern "C" const char *tensor_map_encode_cuda(struct tensor_map *map, const struct tensor_map_2d *of) {
    static const encode_function encode = find_encode();
    const char *const refused = tensor_map_refused(of);
    if (refused) return refused;
    if (!encode) return "the driver knows no TMA (cuTensorMapEncodeTiled); install one for CUDA 12 or newer";
    const cuuint64_t sizes[2] = {(cuuint64_t)of->cols, (cuuint64_t)of->rows};
    const cuuint64_t strides[1] = {(cuuint64_t)of->row_bytes};
    const cuuint32_t box[2] = {(cuuint32_t)of->box_cols, (cuuint32_t)of->box_rows}, steps[2] = {1, 1};
    CUtensorMap encoded;
    if (encode(&encoded, types[of->element], 2, const_cast<void *>(of->matrix), sizes, strides, box, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, swizzles[of->swizzle], CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
        return "the driver refuses this tensor map";
    memcpy(map, &encoded, sizeof encoded);
    return nullptr;
}
