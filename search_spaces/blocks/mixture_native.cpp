// A mixture of convolutions by its distinct live taps, for groups with few channels: the sum over taps itself.
//
// The lanes of a vector are examples of the batch: a map becomes rows of vectors with zeros at both ends of each row, so
// that every tap of every output is one aligned load and one multiplication by a weight that all lanes share. A block of
// neighbouring outputs stays in registers while all taps pass by. Rows outside of the map are skipped.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
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

}  // extern "C"

namespace {

template <typename T>
struct Vector {
    typedef T Type __attribute__((vector_size(64)));
    static constexpr int64_t lanes = 64 / sizeof(T);
};
template <typename T>
using V = typename Vector<T>::Type;

constexpr int64_t BLOCK = 16;  // outputs at a time: enough to hide the latency of two multiply-adds a cycle

template <typename T>
struct Buffer {
    explicit Buffer(int64_t vectors)
        : data(static_cast<V<T>*>(std::aligned_alloc(64, std::max<int64_t>(vectors, 1) * 64)), &std::free) {}
    std::unique_ptr<V<T>[], decltype(&std::free)> data;
};

// Planes of vectors: `channels` maps, each row with zeros around it.
template <typename T>
struct Planes {
    Planes(int64_t channels, int64_t rows, int64_t columns, int64_t before, int64_t after)
        : rows(rows), columns(columns), before(before), pitch(before + columns + after),
          buffer(channels * rows * pitch) {
        std::memset(static_cast<void*>(buffer.data.get()), 0, channels * rows * pitch * 64);
    }
    V<T>* row(int64_t channel, int64_t row) { return buffer.data.get() + (channel * rows + row) * pitch + before; }

    // `count` examples whose maps lie `example` elements apart; lanes without an example become zero.
    void load(int64_t channel, const T* from, int64_t example, int64_t count) {
        constexpr int64_t L = Vector<T>::lanes;
        for (int64_t r = 0; r < rows; ++r) {
            T* to = reinterpret_cast<T*>(row(channel, r));
            for (int64_t b = 0; b < L; ++b) {
                const T* source = from + b * example + r * columns;
                if (b < count)
                    for (int64_t c = 0; c < columns; ++c) to[c * L + b] = source[c];
                else
                    for (int64_t c = 0; c < columns; ++c) to[c * L + b] = 0;
            }
        }
    }

    int64_t rows, columns, before, pitch;
    Buffer<T> buffer;
};

struct Tap {
    int64_t row, column;  // where it looks, relative to an output's place times the step
    int64_t weight;       // its index
};

// One row of outputs: `width` vectors at `out`, sums over all planes and taps.
template <typename T>
void correlate_row(Planes<T>& source, int64_t planes, int64_t out_row, int64_t row_step, int64_t column_step,
                   const std::vector<Tap>& taps, const T* weights, int64_t plane_weights, V<T>* out, int64_t width) {
    for (int64_t start = 0; start < width; start += BLOCK) {
        V<T> sums[BLOCK] = {};
        const int64_t last = std::min(start + BLOCK, width) - 1;
        for (int64_t plane = 0; plane < planes; ++plane)
            for (const Tap& tap : taps) {
                const int64_t row = out_row * row_step + tap.row;
                if (row < 0 || row >= source.rows) continue;
                const int64_t first = start * column_step + tap.column;
                if (first >= source.columns || last * column_step + tap.column < 0) continue;
                const T weight = weights[plane * plane_weights + tap.weight];
                const V<T>* from = source.row(plane, row) + first;
                if (column_step == 1)
                    for (int64_t q = 0; q < BLOCK; ++q) sums[q] += weight * from[q];
                else
                    for (int64_t q = 0; q < BLOCK; ++q) sums[q] += weight * from[q * column_step];
            }
        for (int64_t q = start; q <= last; ++q) out[q] = sums[q - start];
    }
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
    Buffer<T> row(layer.out_columns);
    for (int64_t b = 0; b < layer.batch; b += L) {
        const int64_t count = std::min(L, layer.batch - b);
        for (int64_t g = first; g < last; ++g) {
            for (int64_t i = 0; i < layer.inputs; ++i)
                source.load(i, x + b * in_example + (g * layer.inputs + i) * in_map, in_example, count);
            for (int64_t o = 0; o < layer.outputs; ++o) {
                const int64_t channel = g * layer.outputs + o;
                for (int64_t r = 0; r < layer.out_rows; ++r) {
                    correlate_row(source, layer.inputs, r, layer.row_stride, layer.column_stride, taps,
                                  weights + channel * layer.inputs * layer.taps, layer.taps, row.data.get(),
                                  layer.out_columns);
                    const T* from = reinterpret_cast<const T*>(row.data.get());
                    for (int64_t lane = 0; lane < count; ++lane) {
                        T* to = y + (b + lane) * out_example + channel * out_map + r * layer.out_columns;
                        for (int64_t c = 0; c < layer.out_columns; ++c) to[c] = from[c * L + lane];
                    }
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
                    const T* weights, Buffer<T>& buffer, T* gx, int64_t example, int64_t count) {
    constexpr int64_t L = Vector<T>::lanes;
    for (int64_t p = 0; p < layer.row_stride; ++p)
        for (int64_t q = 0; q < layer.column_stride; ++q) {
            const std::vector<Tap>& taps = classes[p * layer.column_stride + q];
            const int64_t width = ceil_div(layer.columns - q, layer.column_stride);
            if (width <= 0) continue;
            for (int64_t r = p; r < layer.rows; r += layer.row_stride) {
                correlate_row(gradient, layer.outputs, r / layer.row_stride, 1, 1, taps, weights,
                              layer.inputs * layer.taps, buffer.data.get(), width);
                const T* from = reinterpret_cast<const T*>(buffer.data.get());
                for (int64_t lane = 0; lane < count; ++lane) {
                    T* to = gx + lane * example + r * layer.columns + q;
                    for (int64_t c = 0; c < width; ++c) to[c * layer.column_stride] = from[c * L + lane];
                }
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
    Buffer<T> row(layer.columns);
    for (int64_t b = 0; b < layer.batch; b += L) {
        const int64_t count = std::min(L, layer.batch - b);
        for (int64_t g = first; g < last; ++g) {
            const T* own = weights + g * layer.outputs * layer.inputs * layer.taps;
            for (int64_t o = 0; o < layer.outputs; ++o)
                gradient.load(o, gy + b * out_example + (g * layer.outputs + o) * out_map, out_example, count);
            for (int64_t i = 0; i < layer.inputs; ++i) {
                const int64_t map = b * in_example + (g * layer.inputs + i) * in_map;
                if (gx)
                    input_gradient(layer, gradient, classes, own + i * layer.taps, row, gx + map, in_example, count);
                if (!gw) continue;
                source.load(i, x + map, in_example, count);
                for (int64_t o = 0; o < layer.outputs; ++o)
                    weight_gradient(source, i, gradient, o, layer, taps,
                                    gw + ((g * layer.outputs + o) * layer.inputs + i) * layer.taps);
            }
        }
    }
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

}  // extern "C"
