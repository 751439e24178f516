// Passes over feature maps for scores that need one forward pass: everything that an image's node needs is computed
// while the image is in the cache. Images lie channels last, (B, H, W, C), in float32.
//
// A node is a sum of terms, raw maps that still wait for their normalization. One pass over a node reads its terms
// once, and writes the signs of the sum and all that is computed from it: convolutions with the statistics of their
// outputs, average pools, the sum itself. No rectified map ever reaches main memory.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

using std::int64_t;

extern "C" {

struct Term {
    const float* raw;    // (B, H, W, C)
    const float* scale;  // (C), with shift; null: as it is
    const float* shift;
    int64_t rectified;  // after scale and shift
};

struct Convolution {
    const float* weights;  // as `pack` orders them
    float* out;            // (B, ceil(H / stride), ceil(W / stride), outputs)
    double* moments;       // (B, 2, outputs), mean and sum of squared deviations of each image; may be null
    int64_t outputs;
    int64_t kernel;  // odd; the padding is half of it
    int64_t stride;
    int64_t rectified;  // whether its input is
};

struct Pool {  // average of the window's part inside the map
    float* out;  // (B, height, width, C)
    int64_t height, width;
    int64_t kernel, stride, padding;
    int64_t rectified;
};

struct Pass {
    int64_t height, width, channels;
    int64_t margin;  // zeros around the scratch images, at least half of each kernel
    int64_t terms_count, convolutions_count, pools_count;
    const Term* terms;
    const Convolution* convolutions;
    const Pool* pools;
    uint8_t* signs;      // (B, signs_bytes); may be null
    int64_t signs_bytes;
    float* sum;       // (B, H, W, C); may be null
    double* moments;  // (B, 2, C), of the sum; may be null
};

}  // extern "C"

namespace {

// N floats; loads and stores need no alignment.
template <int N>
struct Lanes {
    typedef float type __attribute__((vector_size(4 * N), aligned(4), may_alias));
};
template <int N>
using V = typename Lanes<N>::type;

template <int N>
inline V<N> load(const float* p) {
    return *reinterpret_cast<const V<N>*>(p);
}
template <int N>
inline void store(float* p, V<N> v) {
    *reinterpret_cast<V<N>*>(p) = v;
}

// Which elements are positive, as max(1, N / 8) bytes.
template <int N>
inline void store_signs(uint8_t* to, V<N> v) {
    unsigned bits = 0;
#if defined(__AVX512F__)
    if constexpr (N == 16) {
        uint16_t mask = _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_GT_OQ);
        std::memcpy(to, &mask, 2);
        return;
    }
#endif
#if defined(__AVX__)
    if constexpr (N == 8) {
        *to = uint8_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_setzero_ps(), _CMP_GT_OQ)));
        return;
    }
#endif
    for (int i = 0; i < N; ++i) bits |= unsigned(v[i] > 0.0f) << i;
    to[0] = uint8_t(bits);
    if constexpr (N == 16) to[1] = uint8_t(bits >> 8);
}

template <int N>
inline V<N> rectify(V<N> v) {
    const V<N> zero = {};
    return v < zero ? zero : v;  // what is not a number stays so
}

// Sums the terms of one image. `plain` and `rectified` are scratch images with a margin; either may be null.
template <int N>
void combine(const Pass& pass, int64_t image, float* plain, float* rectified) {
    const int64_t C = pass.channels, W = pass.width, H = pass.height, M = pass.margin;
    const int64_t base = image * H * W * C;
    uint8_t* signs = pass.signs ? pass.signs + image * pass.signs_bytes : nullptr;
    constexpr int bytes = N < 8 ? 1 : N / 8;
    for (int64_t y = 0; y < H; ++y) {
        int64_t from = base + y * W * C;
        int64_t to = ((y + M) * (W + 2 * M) + M) * C;
        for (int64_t x = 0; x < W; ++x) {
            for (int64_t c = 0; c < C; c += N, from += N, to += N) {
                V<N> sum = {};
                for (int64_t t = 0; t < pass.terms_count; ++t) {
                    const Term& term = pass.terms[t];
                    V<N> v = load<N>(term.raw + from);
                    if (term.scale) v = v * load<N>(term.scale + c) + load<N>(term.shift + c);
                    if (term.rectified) v = rectify<N>(v);
                    sum = t ? sum + v : v;
                }
                if (signs) {
                    store_signs<N>(signs, sum);
                    signs += bytes;
                }
                if (plain) store<N>(plain + to, sum);
                if (rectified) store<N>(rectified + to, rectify<N>(sum));
                if (pass.sum) store<N>(pass.sum + from, sum);
            }
        }
    }
}

// Mean and sum of squared deviations of each channel of `rows` x `columns` pixels. Deviations are taken from the first
// pixel, which is of the size of the deviations themselves, so nothing cancels.
template <int N>
void measure(const float* image, int64_t rows, int64_t columns, int64_t row_step, int64_t C, double* moments) {
    const double count = double(rows * columns);
    for (int64_t c = 0; c < C; c += N) {
        const V<N> pivot = load<N>(image + c);
        V<N> sums[4] = {}, squares[4] = {};
        for (int64_t y = 0; y < rows; ++y) {
            const float* p = image + y * row_step + c;
            int64_t x = 0;
            for (; x + 4 <= columns; x += 4, p += 4 * C) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) {
                    const V<N> d = load<N>(p + i * C) - pivot;
                    sums[i] += d;
                    squares[i] += d * d;
                }
            }
            for (; x < columns; ++x, p += C) {
                const V<N> d = load<N>(p) - pivot;
                sums[0] += d;
                squares[0] += d * d;
            }
        }
        const V<N> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        const V<N> square = (squares[0] + squares[1]) + (squares[2] + squares[3]);
        for (int i = 0; i < N; ++i) {
            const double mean = double(sum[i]) / count;
            moments[c + i] = double(pivot[i]) + mean;
            moments[C + c + i] = std::max(0.0, double(square[i]) - mean * double(sum[i]));
        }
    }
}

// P neighbouring output pixels, U * N output channels. STEP floats lie between the inputs of neighbouring outputs; 0
// stands for a step that is not known when this is compiled.
template <int N, int U, int P, int STEP>
inline void convolve_pixels(const float* in, int64_t row_step, int64_t kernel, int64_t C, int64_t step,
                            const float* weights, float* out, int64_t out_step) {
    if constexpr (STEP > 0) step = STEP;
    V<N> sums[P][U] = {};
    const int64_t run = kernel * C;  // the kernel's columns lie side by side
    for (int64_t ky = 0; ky < kernel; ++ky) {
        const float* p = in + ky * row_step;
        for (int64_t j = 0; j < run; ++j, weights += U * N) {
            V<N> w[U];
#pragma GCC unroll 2
            for (int u = 0; u < U; ++u) w[u] = load<N>(weights + u * N);
#pragma GCC unroll 16
            for (int i = 0; i < P; ++i) {
                const float value = p[i * step + j];
#pragma GCC unroll 2
                for (int u = 0; u < U; ++u) sums[i][u] += w[u] * value;
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i) {
#pragma GCC unroll 2
        for (int u = 0; u < U; ++u) store<N>(out + i * out_step + u * N, sums[i][u]);
    }
}

template <int N, int U, int STEP>
void convolve(const Pass& pass, const Convolution& convolution, const float* in, float* out) {
    constexpr int most = N == 16 && U == 1 ? 16 : 8;  // so many sums as there are registers for
    const int64_t C = pass.channels, row_step = (pass.width + 2 * pass.margin) * C;
    const int64_t s = convolution.stride, k = convolution.kernel, outputs = convolution.outputs;
    const int64_t height = (pass.height + s - 1) / s, width = (pass.width + s - 1) / s;
    const float* weights = convolution.weights;
    in += (pass.margin - k / 2) * (row_step + C);
    for (int64_t o = 0; o < outputs; o += N * U, weights += k * k * C * N * U) {
        for (int64_t y = 0; y < height; ++y) {
            const float* row = in + y * s * row_step;
            float* to = out + y * width * outputs + o;
            int64_t x = 0;
            for (; x + most <= width; x += most)
                convolve_pixels<N, U, most, STEP>(row + x * s * C, row_step, k, C, s * C, weights, to + x * outputs,
                                                  outputs);
            for (; x + 4 <= width; x += 4)
                convolve_pixels<N, U, 4, STEP>(row + x * s * C, row_step, k, C, s * C, weights, to + x * outputs,
                                               outputs);
            for (; x < width; ++x)
                convolve_pixels<N, U, 1, STEP>(row + x * s * C, row_step, k, C, s * C, weights, to + x * outputs,
                                               outputs);
        }
    }
}

template <int N, int U>
void convolve(const Pass& pass, const Convolution& convolution, const float* in, float* out) {
    switch (N == 16 ? pass.channels * convolution.stride : 0) {
        case 3: return convolve<N, U, 3>(pass, convolution, in, out);
        case 16: return convolve<N, U, 16>(pass, convolution, in, out);
        case 32: return convolve<N, U, 32>(pass, convolution, in, out);
        case 64: return convolve<N, U, 64>(pass, convolution, in, out);
        default: return convolve<N, U, 0>(pass, convolution, in, out);
    }
}

// Sum of `count` vectors that lie `step` floats apart.
template <int N>
inline V<N> sum_of(const float* p, int64_t step, int64_t count) {
    if (count == 3) return load<N>(p) + load<N>(p + step) + load<N>(p + 2 * step);
    V<N> sum = load<N>(p);
    for (int64_t i = 1; i < count; ++i) sum += load<N>(p + i * step);
    return sum;
}

template <int N>
void pool(const Pass& pass, const Pool& pool, const float* in, float* out) {
    const int64_t C = pass.channels, row = pass.width * C, row_step = (pass.width + 2 * pass.margin) * C;
    thread_local std::vector<float> columns;
    columns.resize(row);
    in += pass.margin * (row_step + C);
    for (int64_t oy = 0; oy < pool.height; ++oy) {
        const int64_t top = std::max<int64_t>(oy * pool.stride - pool.padding, 0);
        const int64_t bottom = std::min(oy * pool.stride - pool.padding + pool.kernel, pass.height);
        for (int64_t i = 0; i < row; i += N)
            store<N>(columns.data() + i, sum_of<N>(in + top * row_step + i, row_step, bottom - top));
        for (int64_t ox = 0; ox < pool.width; ++ox) {
            const int64_t left = std::max<int64_t>(ox * pool.stride - pool.padding, 0);
            const int64_t right = std::min(ox * pool.stride - pool.padding + pool.kernel, pass.width);
            const float share = 1.0f / float((bottom - top) * (right - left));
            for (int64_t c = 0; c < C; c += N, out += N)
                store<N>(out, sum_of<N>(columns.data() + left * C + c, C, right - left) * share);
        }
    }
}

// The widest vector that the channels fill.
int lanes(int64_t channels) {
#if defined(__AVX512F__)
    if (channels % 16 == 0) return 16;
#endif
    if (channels % 8 == 0) return 8;
    return channels % 4 == 0 ? 4 : 1;
}

template <int N>
void convolve_and_measure(const Pass& pass, const Convolution& convolution, const float* in, int64_t image) {
    const int64_t s = convolution.stride, outputs = convolution.outputs;
    const int64_t height = (pass.height + s - 1) / s, width = (pass.width + s - 1) / s;
    float* out = convolution.out + image * height * width * outputs;
    if (N == 16 && outputs % 32 == 0)
        convolve<N, 2>(pass, convolution, in, out);
    else
        convolve<N, 1>(pass, convolution, in, out);
    if (convolution.moments)
        measure<N>(out, height, width, width * outputs, outputs, convolution.moments + image * 2 * outputs);
}

template <int N>
void over_node(const Pass& pass, int64_t image, float* plain, float* rectified) {
    const int64_t C = pass.channels, row_step = (pass.width + 2 * pass.margin) * C;
    combine<N>(pass, image, plain, rectified);
    if (pass.moments)
        measure<N>(plain + pass.margin * (row_step + C), pass.height, pass.width, row_step, C,
                   pass.moments + image * 2 * C);
    for (int64_t i = 0; i < pass.pools_count; ++i) {
        const Pool& p = pass.pools[i];
        pool<N>(pass, p, p.rectified ? rectified : plain, p.out + image * p.height * p.width * C);
    }
}

}  // namespace

extern "C" {

// Into how many output channels at a time `pack` orders weights.
int64_t group(int64_t outputs) {
    const int n = lanes(outputs);
    return n == 16 && outputs % 32 == 0 ? 32 : n;
}

// Weights (outputs, inputs, kernel, kernel) with any strides as (outputs / group, kernel, kernel, inputs, group).
void pack(const float* weights, const int64_t* strides, int64_t outputs, int64_t inputs, int64_t kernel, float* to) {
    const int64_t g = group(outputs);
    for (int64_t o = 0; o < outputs; o += g)
        for (int64_t y = 0; y < kernel; ++y)
            for (int64_t x = 0; x < kernel; ++x)
                for (int64_t c = 0; c < inputs; ++c) {
                    const float* from = weights + o * strides[0] + c * strides[1] + y * strides[2] + x * strides[3];
                    for (int64_t i = 0; i < g; ++i) *to++ = from[i * strides[0]];
                }
}

// Bytes that the signs of one image take.
int64_t signs_bytes(int64_t channels, int64_t height, int64_t width) {
    const int n = lanes(channels);
    return height * width * (channels / n) * (n < 8 ? 1 : n / 8);
}

// One pass over the images from `begin` to `end`. The scratch holds two images with margins, zeroed here.
void run(const Pass* given, int64_t begin, int64_t end, float* scratch) {
    const Pass& pass = *given;
    const int64_t size = (pass.height + 2 * pass.margin) * (pass.width + 2 * pass.margin) * pass.channels;
    bool needs_plain = pass.moments != nullptr, needs_rectified = false;
    for (int64_t i = 0; i < pass.convolutions_count; ++i)
        (pass.convolutions[i].rectified ? needs_rectified : needs_plain) = true;
    for (int64_t i = 0; i < pass.pools_count; ++i) (pass.pools[i].rectified ? needs_rectified : needs_plain) = true;
    float* plain = needs_plain ? scratch : nullptr;
    float* rectified = needs_rectified ? scratch + size : nullptr;
    if (plain) std::memset(plain, 0, size * sizeof(float));
    if (rectified) std::memset(rectified, 0, size * sizeof(float));
    for (int64_t image = begin; image < end; ++image) {
        switch (lanes(pass.channels)) {
            case 16: over_node<16>(pass, image, plain, rectified); break;
            case 8: over_node<8>(pass, image, plain, rectified); break;
            case 4: over_node<4>(pass, image, plain, rectified); break;
            default: over_node<1>(pass, image, plain, rectified);
        }
        for (int64_t i = 0; i < pass.convolutions_count; ++i) {
            const Convolution& convolution = pass.convolutions[i];
            const float* in = convolution.rectified ? rectified : plain;
            switch (lanes(convolution.outputs)) {
                case 16: convolve_and_measure<16>(pass, convolution, in, image); break;
                case 8: convolve_and_measure<8>(pass, convolution, in, image); break;
                case 4: convolve_and_measure<4>(pass, convolution, in, image); break;
                default: convolve_and_measure<1>(pass, convolution, in, image);
            }
        }
    }
}

// Batch normalization as scale and shift (C): from the moments (B, 2, C) of images of `count` pixels. Weight and bias
// may be null.
void normalize(const double* moments, int64_t batch, int64_t count, int64_t C, double epsilon, const float* weight,
               const float* bias, float* scale, float* shift) {
    for (int64_t c = 0; c < C; ++c) {
        double mean = 0.0, deviations = 0.0;
        for (int64_t b = 0; b < batch; ++b) mean += moments[b * 2 * C + c];
        mean /= double(batch);
        for (int64_t b = 0; b < batch; ++b) {
            const double d = moments[b * 2 * C + c] - mean;
            deviations += moments[b * 2 * C + C + c] + double(count) * d * d;
        }
        const double s = (weight ? weight[c] : 1.0) / std::sqrt(deviations / double(batch * count) + epsilon);
        scale[c] = float(s);
        shift[c] = float((bias ? bias[c] : 0.0) - mean * s);
    }
}

// Adds `times` * (places - Hamming distance) of every pair of rows of signs (B, words) to the kernel (B, B), above and
// on the diagonal.
void agree(const uint64_t* signs, int64_t batch, int64_t words, int64_t places, int64_t times, int64_t* kernel) {
    for (int64_t i = 0; i < batch; ++i) {
        const uint64_t* a = signs + i * words;
        kernel[i * batch + i] += times * places;
        for (int64_t j = i + 1; j < batch; ++j) {
            const uint64_t* b = signs + j * words;
            int64_t different = 0;
            for (int64_t w = 0; w < words; ++w) different += __builtin_popcountll(a[w] ^ b[w]);
            kernel[i * batch + j] += times * (places - different);
        }
    }
}

}  // extern "C"
