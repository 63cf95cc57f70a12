// A binary tree of boxes, split where the surface area heuristic estimates least work among a few planes (Wald 2007).
#include "tree_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace raster {
namespace {

constexpr int kBins = 16;
constexpr int kLeaf = 4;  // faces

struct Box {
  float low[3], high[3];

  Box() {
    std::fill(low, low + 3, std::numeric_limits<float>::infinity());
    std::fill(high, high + 3, -std::numeric_limits<float>::infinity());
  }

  void extend(const float* point) {
    for (int axis = 0; axis < 3; ++axis) {
      low[axis] = std::min(low[axis], point[axis]);
      high[axis] = std::max(high[axis], point[axis]);
    }
  }

  void extend(const Box& other) {
    for (int axis = 0; axis < 3; ++axis) {
      low[axis] = std::min(low[axis], other.low[axis]);
      high[axis] = std::max(high[axis], other.high[axis]);
    }
  }

  double area() const {
    const double x = double(high[0]) - low[0], y = double(high[1]) - low[1], z = double(high[2]) - low[2];
    return x < 0 ? 0.0 : x * y + y * z + z * x;
  }
};

struct Item {
  Box box;
  float centre[3];
  int32_t face;
};

struct Split {
  int axis = -1;
  double cost = std::numeric_limits<double>::infinity();
  int bin = 0;
};

int bin_of(float centre, float low, double scale) {
  return std::clamp(static_cast<int>((double(centre) - low) * scale), 0, kBins - 1);
}

class Builder {
 public:
  Builder(std::vector<Item>& items, BuiltTree& tree) : items_(items), tree_(tree) {}

  void build(int32_t node, int64_t begin, int64_t end, int depth) {
    Box box, centres;
    for (int64_t i = begin; i < end; ++i) {
      box.extend(items_[i].box);
      centres.extend(items_[i].centre);
    }
    std::copy(box.low, box.low + 3, tree_.nodes[node].low);
    std::copy(box.high, box.high + 3, tree_.nodes[node].high);
    if (end - begin <= kLeaf) {
      tree_.nodes[node].first = static_cast<int32_t>(tree_.order.size());
      tree_.nodes[node].count = static_cast<int32_t>(end - begin);
      for (int64_t i = begin; i < end; ++i) tree_.order.push_back(items_[i].face);
      return;
    }
    const int64_t middle = divide(begin, end, centres, depth);
    const auto first = static_cast<int32_t>(tree_.nodes.size());
    tree_.nodes[node].first = first;
    tree_.nodes[node].count = 0;
    tree_.nodes.resize(first + 2);
    build(first, begin, middle, depth + 1);
    build(first + 1, middle, end, depth + 1);
  }

 private:
  int64_t divide(int64_t begin, int64_t end, const Box& centres, int depth) {
    const Split best = depth < kDeepest ? best_split(begin, end, centres) : Split();
    if (best.axis >= 0) {
      const int axis = best.axis;
      const double scale = kBins / (double(centres.high[axis]) - centres.low[axis]);
      const auto middle = std::partition(items_.begin() + begin, items_.begin() + end, [&](const Item& item) {
        return bin_of(item.centre[axis], centres.low[axis], scale) < best.bin;
      });
      const int64_t position = middle - items_.begin();
      if (position > begin && position < end) return position;
    }
    return begin + (end - begin) / 2;
  }

  Split best_split(int64_t begin, int64_t end, const Box& centres) const {
    Split best;
    for (int axis = 0; axis < 3; ++axis) {
      const double extent = double(centres.high[axis]) - centres.low[axis];
      if (!(extent > 0)) continue;
      Box boxes[kBins];
      int64_t counts[kBins] = {};
      for (int64_t i = begin; i < end; ++i) {
        const int bin = bin_of(items_[i].centre[axis], centres.low[axis], kBins / extent);
        boxes[bin].extend(items_[i].box);
        ++counts[bin];
      }
      double above[kBins];
      Box right;
      int64_t count = 0;
      for (int bin = kBins - 1; bin > 0; --bin) {
        right.extend(boxes[bin]);
        count += counts[bin];
        above[bin] = right.area() * count;
      }
      Box left;
      count = 0;
      for (int bin = 1; bin < kBins; ++bin) {
        left.extend(boxes[bin - 1]);
        count += counts[bin - 1];
        const double cost = left.area() * count + above[bin];
        if (cost < best.cost) best = {axis, cost, bin};
      }
    }
    return best;
  }

  std::vector<Item>& items_;
  BuiltTree& tree_;
};

bool is_finite(const float* point) {
  return std::isfinite(point[0]) && std::isfinite(point[1]) && std::isfinite(point[2]);
}

}  // namespace

BuiltTree build_tree(const float* vertices, int64_t num_vertices, const int32_t* faces, int64_t num_faces) {
  BuiltTree tree{{}, {}, -1};
  std::vector<Item> items;
  items.reserve(num_faces);
  for (int64_t face = 0; face < num_faces; ++face) {
    const int32_t* corners = faces + 3 * face;
    if (std::any_of(corners, corners + 3, [&](int32_t corner) { return corner < 0 || corner >= num_vertices; })) {
      tree.bad_face = face;
      continue;
    }
    Item item;
    item.face = static_cast<int32_t>(face);
    bool finite = true;
    for (int corner = 0; corner < 3; ++corner) {
      const float* vertex = vertices + 3 * int64_t(corners[corner]);
      finite = finite && is_finite(vertex);
      item.box.extend(vertex);
    }
    if (!finite) continue;
    for (int axis = 0; axis < 3; ++axis) item.centre[axis] = 0.5f * item.box.low[axis] + 0.5f * item.box.high[axis];
    items.push_back(item);
  }
  if (items.empty()) return tree;
  tree.order.reserve(items.size());
  tree.nodes.reserve(items.size());
  tree.nodes.resize(1);
  Builder(items, tree).build(0, 0, static_cast<int64_t>(items.size()), 0);
  return tree;
}

}  // namespace raster
