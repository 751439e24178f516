// Mixtures of convolutions on a processor, two ways. In both the lanes of a vector are different examples of a batch or
// different maps, so maps are transposed on their way in and out.
//
// Directly, for groups with few channels: the sum over the distinct live taps. A map becomes rows of vectors with zeros
// at both ends of each row, so that every tap of every output is one aligned load and one multiplication by a weight
// that all lanes share. A block of neighbouring outputs stays in registers while all taps pass by.
//
// By Fourier transforms of many small real maps at once, straight into spectra that have frequencies first: a transform
// is plain arithmetic on vectors, without shuffles, and a frequency of 16 maps is written in one piece. Two blocks of
// lanes go through one complex transform along a row, as its real and its imaginary part. Positions without data, in
// and out, cost nothing along the first axis.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

using std::int64_t;

extern "C" {

struct Layer {  // all sizes in elements; maps are (B, C, rows, columns), contiguous
    int64_t batch, groups, inputs, outputs;  // channels of one group
    int64_t rows, columns, out_rows, out_columns;
    int64_t row_stride, column_stride;
    int64_t taps;
    const int64_t* row_offsets;  // of each tap, ascending
    const int64_t* column_offsets;  // ascending within a row
};

struct Grid {  // where the values of a map lie on a circle (of circles); one axis has rows = row_length = 1
    int64_t row_length, column_length;  // N of both axes, products of 2, 3 and 5
    int64_t values;
    const int64_t* rows;     // of each value, from 0 to row_length - 1; values that share a row follow each other
    const int64_t* columns;  // of each value, from 0 to column_length - 1
};

}  // extern "C"

namespace {

template <typename T>
struct Vector {
    typedef T Type __attribute__((vector_size(64)));
    static constexpr int64_t lanes = 64 / sizeof(T);
};
template <typename T>
using V = typename Vector<T>::Type;

template <typename T>
struct Array {  // aligned to vectors
    explicit Array(int64_t count)
        : data(static_cast<T*>(std::aligned_alloc(64, (std::max<int64_t>(count, 1) * sizeof(T) + 63) / 64 * 64)),
               &std::free) {}
    T& operator[](int64_t i) { return data.get()[i]; }
    std::unique_ptr<T[], decltype(&std::free)> data;
};

// One step of a transposition: lanes whose bit STEP is set in a change places with those whose is not in b.
template <int STEP, typename T, std::size_t... I>
inline void exchange(V<T>& a, V<T>& b, std::index_sequence<I...>) {
    constexpr int L = Vector<T>::lanes;
    const V<T> first = __builtin_shufflevector(a, b, ((I & STEP) ? L + int(I) - STEP : int(I))...);
    const V<T> second = __builtin_shufflevector(a, b, ((I & STEP) ? L + int(I) : int(I) + STEP)...);
    a = first, b = second;
}

template <typename T, int STEP = 1>
inline void transpose(V<T>* rows) {
    constexpr int L = Vector<T>::lanes;
    if constexpr (STEP < L) {
        for (int i = 0; i < L; ++i)
            if (!(i & STEP)) exchange<STEP, T>(rows[i], rows[i + STEP], std::make_index_sequence<L>());
        transpose<T, 2 * STEP>(rows);
    }
}

// `count` maps, `pitch` apart, to vectors whose lanes are maps: value k goes to to(k). Lanes without a map become zero.
template <typename T, typename To>
inline void lanes_from_maps(const T* maps, int64_t pitch, int64_t count, int64_t values, To to) {
    constexpr int64_t L = Vector<T>::lanes;
    int64_t k = 0;
    for (; k + L <= values; k += L) {
        V<T> block[L] = {};
        for (int64_t lane = 0; lane < count; ++lane) std::memcpy(&block[lane], maps + lane * pitch + k, 64);
        transpose<T>(block);
        for (int64_t j = 0; j < L; ++j) *to(k + j) = block[j];
    }
    for (; k < values; ++k) {
        alignas(64) T one[L] = {};
        for (int64_t lane = 0; lane < count; ++lane) one[lane] = maps[lane * pitch + k];
        std::memcpy(to(k), one, 64);
    }
}

// The other way round.
template <typename T, typename From>
inline void maps_from_lanes(T* maps, int64_t pitch, int64_t count, int64_t values, From from) {
    constexpr int64_t L = Vector<T>::lanes;
    int64_t k = 0;
    for (; k + L <= values; k += L) {
        V<T> block[L];
        for (int64_t j = 0; j < L; ++j) block[j] = *from(k + j);
        transpose<T>(block);
        for (int64_t lane = 0; lane < count; ++lane) std::memcpy(maps + lane * pitch + k, &block[lane], 64);
    }
    for (; k < values; ++k) {
        alignas(64) T one[L];
        std::memcpy(one, from(k), 64);
        for (int64_t lane = 0; lane < count; ++lane) maps[lane * pitch + k] = one[lane];
    }
}

// Directly -----------------------------------------------------------------------------------------------------------

constexpr int64_t TOGETHER = 64;  // outputs, at least, that are transposed together
constexpr int64_t BLOCK = 16;     // outputs at a time: enough to hide the latency of two multiply-adds a cycle

// Planes of vectors: `channels` maps, each row with zeros around it.
template <typename T>
struct Planes {
    Planes(int64_t channels, int64_t rows, int64_t columns, int64_t before, int64_t after)
        : rows(rows), columns(columns), before(before), pitch(before + columns + after),
          buffer(channels * rows * pitch) {
        std::memset(static_cast<void*>(buffer.data.get()), 0, channels * rows * pitch * 64);
    }
    V<T>* row(int64_t channel, int64_t row) { return buffer.data.get() + (channel * rows + row) * pitch + before; }

    // `count` examples whose maps lie `example` elements apart.
    void load(int64_t channel, const T* from, int64_t example, int64_t count) {
        V<T>* to = row(channel, 0);
        lanes_from_maps(from, example, count, rows * columns,
                        [&](int64_t k) { return to + k / columns * pitch + k % columns; });
    }

    int64_t rows, columns, before, pitch;
    Array<V<T>> buffer;
};

struct Tap {
    int64_t row, column;  // where it looks, relative to an output's place times the step
    int64_t weight;       // its index
};

// One row of outputs: `width` vectors at `out`, sums over all planes and taps.
template <int64_t SIZE, typename T>
void correlate_blocks(Planes<T>& source, int64_t planes, int64_t out_row, int64_t row_step, int64_t column_step,
                      const std::vector<Tap>& taps, const T* weights, int64_t plane_weights, V<T>* out,
                      int64_t width) {
    for (int64_t start = 0; start < width; start += SIZE) {
        V<T> sums[SIZE] = {};
        const int64_t last = std::min(start + SIZE, width) - 1;
        for (int64_t plane = 0; plane < planes; ++plane)
            for (const Tap& tap : taps) {
                const int64_t row = out_row * row_step + tap.row;
                if (row < 0 || row >= source.rows) continue;
                const int64_t first = start * column_step + tap.column;
                if (first >= source.columns || last * column_step + tap.column < 0) continue;
                const T weight = weights[plane * plane_weights + tap.weight];
                const V<T>* from = source.row(plane, row) + first;
                if (column_step == 1)
                    for (int64_t q = 0; q < SIZE; ++q) sums[q] += weight * from[q];
                else
                    for (int64_t q = 0; q < SIZE; ++q) sums[q] += weight * from[q * column_step];
            }
        for (int64_t q = start; q <= last; ++q) out[q] = sums[q - start];
    }
}

template <typename T>
void correlate_row(Planes<T>& source, int64_t planes, int64_t out_row, int64_t row_step, int64_t column_step,
                   const std::vector<Tap>& taps, const T* weights, int64_t plane_weights, V<T>* out, int64_t width) {
    const auto run = width > BLOCK / 2 ? correlate_blocks<BLOCK, T> : correlate_blocks<BLOCK / 2, T>;
    run(source, planes, out_row, row_step, column_step, taps, weights, plane_weights, out, width);
}

// Sums over all outputs of the product of an output's gradient and what COUNT taps of one row see there.
template <typename T, int COUNT>
void products(Planes<T>& source, int64_t plane, Planes<T>& gradient, int64_t output, const Layer& layer,
              const Tap* taps, T* sums) {
    const int64_t step = layer.column_stride;
    V<T> total[COUNT] = {};
    // columns of outputs at which any of the taps sees the map: taps ascend
    const int64_t low = std::max<int64_t>(0, (-taps[COUNT - 1].column + step - 1) / step);
    const int64_t reach = source.columns - 1 - taps[0].column;
    const int64_t high = reach < 0 ? 0 : std::min(layer.out_columns, reach / step + 1);
    for (int64_t r = 0; r < layer.out_rows; ++r) {
        const int64_t row = r * layer.row_stride + taps[0].row;
        if (row < 0 || row >= source.rows) continue;
        const V<T>* from = source.row(plane, row);
        const V<T>* own = gradient.row(output, r);
        for (int64_t c = low; c < high; ++c)
            for (int k = 0; k < COUNT; ++k) total[k] += own[c] * from[c * step + taps[k].column];
    }
    for (int k = 0; k < COUNT; ++k) {
        T sum = 0;
        for (int64_t lane = 0; lane < Vector<T>::lanes; ++lane) sum += total[k][lane];
        sums[taps[k].weight] += sum;
    }
}

template <typename T>
void weight_gradient(Planes<T>& source, int64_t plane, Planes<T>& gradient, int64_t output, const Layer& layer,
                     const std::vector<Tap>& taps, T* sums) {
    for (size_t first = 0; first < taps.size();) {
        size_t count = 1;
        while (count < 8 && first + count < taps.size() && taps[first + count].row == taps[first].row) ++count;
        const Tap* own = &taps[first];
        if (count < 8) count = count >= 4 ? 4 : count >= 2 ? 2 : 1;
        switch (count) {
            case 8: products<T, 8>(source, plane, gradient, output, layer, own, sums); break;
            case 4: products<T, 4>(source, plane, gradient, output, layer, own, sums); break;
            case 2: products<T, 2>(source, plane, gradient, output, layer, own, sums); break;
            default: products<T, 1>(source, plane, gradient, output, layer, own, sums);
        }
        first += count;
    }
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Margins {
    int64_t before = 0, after = 0;
    void include(const std::vector<Tap>& taps) {
        for (const Tap& tap : taps) {
            before = std::max(before, -tap.column);
            after = std::max(after, tap.column);
        }
    }
};

// Zeros after a row: the reach of the taps, and what the last block of outputs reads beyond the row.
int64_t behind(const Margins& margins, int64_t width, int64_t step, int64_t columns) {
    const int64_t end = (ceil_div(width, BLOCK) * BLOCK - 1) * step + 1;
    return margins.after + std::max<int64_t>(0, end - columns);
}

std::vector<Tap> taps_of(const Layer& layer) {
    std::vector<Tap> taps;
    for (int64_t t = 0; t < layer.taps; ++t) taps.push_back({layer.row_offsets[t], layer.column_offsets[t], t});
    return taps;
}

template <typename T>
void run_forward(const Layer& layer, const T* x, const T* weights, T* y, int64_t first, int64_t last) {
    constexpr int64_t L = Vector<T>::lanes;
    const std::vector<Tap> taps = taps_of(layer);
    const int64_t in_map = layer.rows * layer.columns, out_map = layer.out_rows * layer.out_columns;
    const int64_t in_example = layer.groups * layer.inputs * in_map;
    const int64_t out_example = layer.groups * layer.outputs * out_map;
    Margins margins;
    margins.include(taps);
    Planes<T> source(layer.inputs, layer.rows, layer.columns, margins.before,
                     behind(margins, layer.out_columns, layer.column_stride, layer.columns));
    const int64_t together = ceil_div(TOGETHER, layer.out_columns);
    Array<V<T>> some(TOGETHER + layer.out_columns);
    for (int64_t b = 0; b < layer.batch; b += L) {
        const int64_t count = std::min(L, layer.batch - b);
        for (int64_t g = first; g < last; ++g) {
            for (int64_t i = 0; i < layer.inputs; ++i)
                source.load(i, x + b * in_example + (g * layer.inputs + i) * in_map, in_example, count);
            for (int64_t o = 0; o < layer.outputs; ++o) {
                const int64_t channel = g * layer.outputs + o;
                for (int64_t r = 0; r < layer.out_rows; ++r) {
                    const int64_t waiting = r % together;
                    correlate_row(source, layer.inputs, r, layer.row_stride, layer.column_stride, taps,
                                  weights + channel * layer.inputs * layer.taps, layer.taps,
                                  &some[waiting * layer.out_columns], layer.out_columns);
                    if (waiting + 1 < together && r + 1 < layer.out_rows) continue;
                    maps_from_lanes(y + b * out_example + channel * out_map + (r - waiting) * layer.out_columns,
                                    out_example, count, (waiting + 1) * layer.out_columns,
                                    [&](int64_t k) { return &some[k]; });
                }
            }
        }
    }
}

// The taps that inputs at `row` and `column` modulo the strides are seen by, as taps on the output's gradient.
std::vector<Tap> mirrored(const Layer& layer, int64_t row, int64_t column) {
    std::vector<Tap> taps;
    for (int64_t t = layer.taps - 1; t >= 0; --t) {
        const int64_t r = row - layer.row_offsets[t], c = column - layer.column_offsets[t];
        if (r % layer.row_stride == 0 && c % layer.column_stride == 0)
            taps.push_back({r / layer.row_stride, c / layer.column_stride, t});
    }
    return taps;
}

template <typename T>
void input_gradient(const Layer& layer, Planes<T>& gradient, const std::vector<std::vector<Tap>>& classes,
                    const T* weights, Array<V<T>>& some, T* gx, int64_t example, int64_t count) {
    const int64_t step = layer.column_stride;
    const int64_t together = step == 1 && layer.row_stride == 1 ? ceil_div(TOGETHER, layer.columns) : 1;
    for (int64_t p = 0; p < layer.row_stride; ++p)
        for (int64_t q = 0; q < std::min(step, layer.columns); ++q) {
            const std::vector<Tap>& taps = classes[p * step + q];
            const int64_t width = ceil_div(layer.columns - q, step);
            for (int64_t r = p; r < layer.rows; r += layer.row_stride) {
                const int64_t waiting = r % together;
                correlate_row(gradient, layer.outputs, r / layer.row_stride, 1, 1, taps, weights,
                              layer.inputs * layer.taps, &some[waiting * width], width);
                if (waiting + 1 < together && r + 1 < layer.rows) continue;
                T* to = gx + (r - waiting) * layer.columns;
                if (step == 1) {
                    maps_from_lanes(to, example, count, (waiting + 1) * width, [&](int64_t k) { return &some[k]; });
                    continue;
                }
                for (int64_t lane = 0; lane < count; ++lane)
                    for (int64_t c = 0; c < width; ++c) to[lane * example + q + c * step] = some[c][lane];
            }
        }
}

template <typename T>
void run_backward(const Layer& layer, const T* x, const T* weights, const T* gy, T* gx, T* gw, int64_t first,
                  int64_t last) {
    constexpr int64_t L = Vector<T>::lanes;
    const std::vector<Tap> taps = taps_of(layer);
    const int64_t in_map = layer.rows * layer.columns, out_map = layer.out_rows * layer.out_columns;
    const int64_t in_example = layer.groups * layer.inputs * in_map;
    const int64_t out_example = layer.groups * layer.outputs * out_map;
    Margins seen, seeing;
    seen.include(taps);
    std::vector<std::vector<Tap>> classes;
    for (int64_t p = 0; p < layer.row_stride; ++p)
        for (int64_t q = 0; q < layer.column_stride; ++q) {
            classes.push_back(mirrored(layer, p, q));
            seeing.include(classes.back());
        }
    Planes<T> source(gw ? layer.inputs : 0, layer.rows, layer.columns, seen.before,
                     behind(seen, layer.out_columns, layer.column_stride, layer.columns));
    Planes<T> gradient(layer.outputs, layer.out_rows, layer.out_columns, seeing.before,
                       behind(seeing, ceil_div(layer.columns, layer.column_stride), 1, layer.out_columns));
    Array<V<T>> some(TOGETHER + layer.columns);
    for (int64_t b = 0; b < layer.batch; b += L) {
        const int64_t count = std::min(L, layer.batch - b);
        for (int64_t g = first; g < last; ++g) {
            const T* own = weights + g * layer.outputs * layer.inputs * layer.taps;
            for (int64_t o = 0; o < layer.outputs; ++o)
                gradient.load(o, gy + b * out_example + (g * layer.outputs + o) * out_map, out_example, count);
            for (int64_t i = 0; i < layer.inputs; ++i) {
                const int64_t map = b * in_example + (g * layer.inputs + i) * in_map;
                if (gx)
                    input_gradient(layer, gradient, classes, own + i * layer.taps, some, gx + map, in_example, count);
                if (!gw) continue;
                source.load(i, x + map, in_example, count);
                for (int64_t o = 0; o < layer.outputs; ++o)
                    weight_gradient(source, i, gradient, o, layer, taps,
                                    gw + ((g * layer.outputs + o) * layer.inputs + i) * layer.taps);
            }
        }
    }
}

// By Fourier transforms ---------------------------------------------------------------------------------------------

template <typename T>
struct Complex {
    V<T> re, im;
};
template <typename T>
inline Complex<T> operator+(const Complex<T>& a, const Complex<T>& b) { return {a.re + b.re, a.im + b.im}; }
template <typename T>
inline Complex<T> operator-(const Complex<T>& a, const Complex<T>& b) { return {a.re - b.re, a.im - b.im}; }
template <typename T>
inline Complex<T> operator*(const Complex<T>& a, T s) { return {a.re * s, a.im * s}; }

template <typename T>
struct Root {
    T re, im;
};

// Times a root of unity, which is conjugated for inverse transforms.
template <bool INVERSE, typename T>
inline Complex<T> turn(const Complex<T>& a, const Root<T>& w) {
    if (INVERSE) return {a.re * w.re + a.im * w.im, a.im * w.re - a.re * w.im};
    return {a.re * w.re - a.im * w.im, a.im * w.re + a.re * w.im};
}

// Times -i, or +i for inverse transforms.
template <bool INVERSE, typename T>
inline Complex<T> quarter(const Complex<T>& a) {
    if (INVERSE) return {-a.im, a.re};
    return {a.im, -a.re};
}

template <typename T>
struct Plan {
    explicit Plan(int64_t length) : length(length), roots(length) {
        for (int64_t i = 0; i < length; ++i) {
            const double angle = -2 * M_PI * double(i) / double(length);
            roots[i] = {T(std::cos(angle)), T(std::sin(angle))};
        }
        int64_t rest = length;
        for (int64_t radix : {4, 2, 3, 5})
            for (; rest % radix == 0; rest /= radix) radices.push_back(radix);
    }
    int64_t length;
    std::vector<Root<T>> roots;  // e^{-2πi k / N}
    std::vector<int64_t> radices;
};

template <typename T>
const Plan<T>& plan_of(int64_t length) {
    thread_local std::map<int64_t, Plan<T>> plans;
    return plans.try_emplace(length, length).first->second;
}

template <bool INVERSE, int RADIX, typename T>
inline void butterfly(Complex<T>* x) {
    if constexpr (RADIX == 2) {
        const Complex<T> a = x[0], b = x[1];
        x[0] = a + b, x[1] = a - b;
    } else if constexpr (RADIX == 3) {
        const Complex<T> sum = x[1] + x[2], middle = x[0] - sum * T(0.5);
        const Complex<T> side = quarter<INVERSE>((x[1] - x[2]) * T(0.86602540378443864676));
        x[0] = x[0] + sum, x[1] = middle + side, x[2] = middle - side;
    } else if constexpr (RADIX == 4) {
        const Complex<T> a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = quarter<INVERSE>(x[1] - x[3]);
        x[0] = a + c, x[1] = b + d, x[2] = a - c, x[3] = b - d;
    } else {
        constexpr T c1 = T(0.30901699437494742410), c2 = T(-0.80901699437494742410);
        constexpr T s1 = T(0.95105651629515357212), s2 = T(0.58778525229247312917);
        const Complex<T> a = x[1] + x[4], b = x[2] + x[3], c = x[1] - x[4], d = x[2] - x[3];
        const Complex<T> p = x[0] + a * c1 + b * c2, q = x[0] + a * c2 + b * c1;
        const Complex<T> r = quarter<INVERSE>(c * s1 + d * s2), s = quarter<INVERSE>(c * s2 - d * s1);
        x[0] = x[0] + a + b, x[1] = p + r, x[2] = q + s, x[3] = q - s, x[4] = p - r;
    }
}

// One pass of the self-sorting (Stockham) transform: blocks of length `length` that lie `step` apart.
template <bool INVERSE, int RADIX, typename T>
void pass(const Plan<T>& plan, const Complex<T>* from, Complex<T>* to, int64_t length, int64_t step) {
    const int64_t part = length / RADIX;
    for (int64_t p = 0; p < part; ++p)
        for (int64_t q = 0; q < step; ++q) {
            Complex<T> x[RADIX];
            for (int k = 0; k < RADIX; ++k) x[k] = from[q + step * (p + part * k)];
            butterfly<INVERSE, RADIX>(x);
            to[q + step * RADIX * p] = x[0];
            for (int k = 1; k < RADIX; ++k)
                to[q + step * (RADIX * p + k)] = p ? turn<INVERSE>(x[k], plan.roots[step * p * k]) : x[k];
        }
}

// Transforms `data` without scaling; the result lies in the array that is returned, one of the two.
template <bool INVERSE, typename T>
Complex<T>* transform(const Plan<T>& plan, Complex<T>* data, Complex<T>* other) {
    int64_t length = plan.length, step = 1;
    for (const int64_t radix : plan.radices) {
        switch (radix) {
            case 2: pass<INVERSE, 2>(plan, data, other, length, step); break;
            case 3: pass<INVERSE, 3>(plan, data, other, length, step); break;
            case 4: pass<INVERSE, 4>(plan, data, other, length, step); break;
            default: pass<INVERSE, 5>(plan, data, other, length, step);
        }
        std::swap(data, other);
        length /= radix, step *= radix;
    }
    return data;
}

// Values that share a row: `begin` to `end` of the grid's lists.
struct Row {
    int64_t row, begin, end;
};

std::vector<Row> rows_of(const Grid& grid) {
    std::vector<Row> rows;
    for (int64_t k = 0; k < grid.values; ++k) {
        if (rows.empty() || rows.back().row != grid.rows[k]) rows.push_back({grid.rows[k], k, k});
        rows.back().end = k + 1;
    }
    return rows;
}

// The lanes of one frequency to or from `count` complex numbers side by side.
template <typename T, std::size_t... I>
inline void store(const Complex<T>& from, T* to, int64_t count, std::index_sequence<I...>) {
    constexpr int L = Vector<T>::lanes;
    const V<T> halves[2] = {__builtin_shufflevector(from.re, from.im, (int(I) / 2 + int(I) % 2 * L)...),
                            __builtin_shufflevector(from.re, from.im, (int(I) / 2 + L / 2 + int(I) % 2 * L)...)};
    std::memcpy(to, halves, count == L ? 128 : count * 2 * sizeof(T));
}
template <typename T, std::size_t... I>
inline Complex<T> load(const T* from, int64_t count, std::index_sequence<I...>) {
    V<T> halves[2] = {};
    std::memcpy(halves, from, count == Vector<T>::lanes ? 128 : count * 2 * sizeof(T));
    return {__builtin_shufflevector(halves[0], halves[1], (2 * int(I))...),
            __builtin_shufflevector(halves[0], halves[1], (2 * int(I) + 1)...)};
}

template <typename T>
struct Scratch {
    Scratch(const Grid& grid, int64_t rows)
        : rows(rows), line(grid.column_length), other_line(grid.column_length), column(grid.row_length),
          other_column(grid.row_length), halves(2 * rows * (grid.column_length / 2 + 1)) {}
    // of block 0 or 1: the half spectrum of a row, frequencies first
    Complex<T>& half(int64_t block, int64_t frequency, int64_t row) {
        return halves[(frequency * 2 + block) * rows + row];
    }
    int64_t rows;
    Array<Complex<T>> line, other_line, column, other_column, halves;
};

// Either pitch is 1: maps lie one after the other, or side by side.
template <typename T>
void forward_block(const Grid& grid, const std::vector<Row>& rows, Scratch<T>& scratch, const T* values,
                   int64_t map_pitch, int64_t value_pitch, T* spectra, int64_t maps, int64_t count) {
    constexpr int64_t L = Vector<T>::lanes;
    const int64_t n = grid.column_length;
    const Plan<T>& along = plan_of<T>(n);
    const Plan<T>& across = plan_of<T>(grid.row_length);
    for (size_t r = 0; r < rows.size(); ++r) {
        std::memset(static_cast<void*>(&scratch.line[0]), 0, n * sizeof(Complex<T>));
        for (int64_t block = 0; block * L < count; ++block) {  // block 1 is the imaginary part
            const int64_t begin = rows[r].begin, own = std::min(L, count - block * L);
            const T* from = values + block * L * map_pitch + begin * value_pitch;
            const auto to = [&](int64_t k) { return &scratch.line[grid.columns[begin + k]].re + block; };
            if (value_pitch == 1)
                lanes_from_maps(from, map_pitch, own, rows[r].end - begin, to);
            else
                for (int64_t k = begin; k < rows[r].end; ++k, from += value_pitch)
                    std::memcpy(to(k - begin), from, own == L ? 64 : own * sizeof(T));
        }
        const Complex<T>* z = transform<false>(along, &scratch.line[0], &scratch.other_line[0]);
        for (int64_t f = 0; f <= n / 2; ++f) {
            const Complex<T> a = z[f], b = z[f ? n - f : 0];
            scratch.half(0, f, r) = Complex<T>{a.re + b.re, a.im - b.im} * T(0.5);
            scratch.half(1, f, r) = Complex<T>{a.im + b.im, b.re - a.re} * T(0.5);
        }
    }
    for (int64_t f = 0; f <= n / 2; ++f)
        for (int64_t block = 0; block * L < count; ++block) {
            Complex<T>* column = &scratch.column[0];
            std::memset(static_cast<void*>(column), 0, grid.row_length * sizeof(Complex<T>));
            for (size_t r = 0; r < rows.size(); ++r) column[rows[r].row] = scratch.half(block, f, r);
            const Complex<T>* z = transform<false>(across, column, &scratch.other_column[0]);
            for (int64_t g = 0; g < grid.row_length; ++g)
                store<T>(z[g], spectra + 2 * ((f * grid.row_length + g) * maps + block * L),
                         std::min(L, count - block * L), std::make_index_sequence<L>());
        }
}

template <typename T>
void inverse_block(const Grid& grid, const std::vector<Row>& rows, Scratch<T>& scratch, T* values, int64_t map_pitch,
                   int64_t value_pitch, const T* spectra, int64_t maps, int64_t count) {
    constexpr int64_t L = Vector<T>::lanes;
    const int64_t n = grid.column_length;
    const Plan<T>& along = plan_of<T>(n);
    const Plan<T>& across = plan_of<T>(grid.row_length);
    const T scale = T(1) / T(n * grid.row_length);
    for (int64_t f = 0; f <= n / 2; ++f)
        for (int64_t block = 0; block < 2; ++block) {
            const int64_t own = std::min(L, count - block * L);
            Complex<T>* column = &scratch.column[0];
            for (int64_t g = 0; g < grid.row_length; ++g)
                column[g] = own > 0 ? load<T>(spectra + 2 * ((f * grid.row_length + g) * maps + block * L), own,
                                              std::make_index_sequence<L>())
                                    : Complex<T>{};
            const Complex<T>* z = transform<true>(across, column, &scratch.other_column[0]);
            for (size_t r = 0; r < rows.size(); ++r) scratch.half(block, f, r) = z[rows[r].row] * scale;
        }
    for (size_t r = 0; r < rows.size(); ++r) {
        Complex<T>* line = &scratch.line[0];
        for (int64_t f = 0; f <= n / 2; ++f) {
            const Complex<T> a = scratch.half(0, f, r), b = scratch.half(1, f, r);
            line[f] = {a.re - b.im, a.im + b.re};
            if (f && 2 * f < n) line[n - f] = {a.re + b.im, b.re - a.im};
        }
        const Complex<T>* z = transform<true>(along, line, &scratch.other_line[0]);
        for (int64_t block = 0; block * L < count; ++block) {
            const int64_t begin = rows[r].begin, own = std::min(L, count - block * L);
            T* to = values + block * L * map_pitch + begin * value_pitch;
            const auto from = [&](int64_t k) { return &z[grid.columns[begin + k]].re + block; };
            if (value_pitch == 1)
                maps_from_lanes(to, map_pitch, own, rows[r].end - begin, from);
            else
                for (int64_t k = begin; k < rows[r].end; ++k, to += value_pitch)
                    std::memcpy(to, from(k - begin), own == L ? 64 : own * sizeof(T));
        }
    }
}

template <typename T>
void run_forward(const Grid& grid, const T* values, int64_t map_pitch, int64_t value_pitch, T* spectra, int64_t maps,
                 int64_t first, int64_t last) {
    const std::vector<Row> rows = rows_of(grid);
    Scratch<T> scratch(grid, rows.size());
    for (int64_t m = first; m < last; m += 2 * Vector<T>::lanes)
        forward_block(grid, rows, scratch, values + m * map_pitch, map_pitch, value_pitch, spectra + 2 * m, maps,
                      std::min(2 * Vector<T>::lanes, last - m));
}

template <typename T>
void run_inverse(const Grid& grid, T* values, int64_t map_pitch, int64_t value_pitch, const T* spectra, int64_t maps,
                 int64_t first, int64_t last) {
    const std::vector<Row> rows = rows_of(grid);
    Scratch<T> scratch(grid, rows.size());
    for (int64_t m = first; m < last; m += 2 * Vector<T>::lanes)
        inverse_block(grid, rows, scratch, values + m * map_pitch, map_pitch, value_pitch, spectra + 2 * m, maps,
                      std::min(2 * Vector<T>::lanes, last - m));
}

}  // namespace

extern "C" {

// Weights and their gradient are (channels out, channels in of a group, taps); groups `first` to `last` are computed.
void forward_float(const Layer* layer, const float* x, const float* weights, float* y, int64_t first, int64_t last) {
    run_forward(*layer, x, weights, y, first, last);
}
void forward_double(const Layer* layer, const double* x, const double* weights, double* y, int64_t first,
                    int64_t last) {
    run_forward(*layer, x, weights, y, first, last);
}

// gx and gw may be null; gw must be zero before.
void backward_float(const Layer* layer, const float* x, const float* weights, const float* gy, float* gx, float* gw,
                    int64_t first, int64_t last) {
    run_backward(*layer, x, weights, gy, gx, gw, first, last);
}
void backward_double(const Layer* layer, const double* x, const double* weights, const double* gy, double* gx,
                     double* gw, int64_t first, int64_t last) {
    run_backward(*layer, x, weights, gy, gx, gw, first, last);
}

// Value k of map m lies at values[m * map_pitch + k * value_pitch]. Spectra are complex (column_length / 2 + 1,
// row_length, maps): e^{-...} forward; the inverse divides by both lengths. Maps `first` to `last` are transformed.
void spectra_float(const Grid* grid, const float* values, int64_t map_pitch, int64_t value_pitch, float* spectra,
                   int64_t maps, int64_t first, int64_t last) {
    run_forward(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}
void spectra_double(const Grid* grid, const double* values, int64_t map_pitch, int64_t value_pitch, double* spectra,
                    int64_t maps, int64_t first, int64_t last) {
    run_forward(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}
void values_float(const Grid* grid, float* values, int64_t map_pitch, int64_t value_pitch, const float* spectra,
                  int64_t maps, int64_t first, int64_t last) {
    run_inverse(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}
void values_double(const Grid* grid, double* values, int64_t map_pitch, int64_t value_pitch, const double* spectra,
                   int64_t maps, int64_t first, int64_t last) {
    run_inverse(*grid, values, map_pitch, value_pitch, spectra, maps, first, last);
}

}  // extern "C"
