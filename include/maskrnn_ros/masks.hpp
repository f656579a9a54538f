// SPDX-License-Identifier: Apache-2.0
//
// The crop masks of maskrnn_ros/msg/InstanceMask in C++14, header only, from raw bytes: no ROS types, so it also serves
// who reads recordings without ROS. InstanceMask.msg defines the encodings; maskrnn_ros.masks is the same in Python.
//
//   using namespace maskrnn_ros::masks;
//   const auto & box = cup.box;
//   const auto mask = decode(cup.data, box.height, box.width, cup.encoding);  // row by row, 255 or 0
//   std::vector<std::uint16_t> labels(image_height * image_width);
//   paste(
//     mask, box.height, box.width, box.x_offset, box.y_offset, std::uint16_t(cup.id), labels.data(), image_height,
//     image_width);
#ifndef MASKRNN_ROS__MASKS_HPP_
#define MASKRNN_ROS__MASKS_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace maskrnn_ros
{
namespace masks
{

/// Largest mask that is decoded, as in maskrnn_ros/limits.py: runs of some bytes may say any size.
constexpr std::uint32_t max_pixels = 34000000;
constexpr std::uint32_t max_side = 16384;

/// How the bytes hold the mask; the values are those of InstanceMask::ENCODING_*.
enum class Encoding : std::uint8_t
{
  None = 0,
  Mono8 = 1,
  Bits = 2,
  Rle = 3,
  Prob8 = 4
};

/// The data contradict the size or the encoding that they are said to have; what() gives expected and actual value.
class MaskError : public std::runtime_error
{
public:
  using std::runtime_error::runtime_error;
};

namespace detail
{

inline std::string size_text(std::uint32_t height, std::uint32_t width)
{
  const auto pixels = static_cast<std::uint64_t>(height) * width;
  return std::to_string(height) + " x " + std::to_string(width) + " = " + std::to_string(pixels);
}

inline std::uint32_t run_at(const std::uint8_t * data)
{
  return static_cast<std::uint32_t>(data[0]) | static_cast<std::uint32_t>(data[1]) << 8 |
         static_cast<std::uint32_t>(data[2]) << 16 | static_cast<std::uint32_t>(data[3]) << 24;
}

inline void check_size(std::uint32_t height, std::uint32_t width)
{
  const auto pixels = static_cast<std::uint64_t>(height) * width;
  if (height > max_side || width > max_side || pixels > max_pixels) {
    throw MaskError(
            "mask must have at most " + std::to_string(max_pixels) + " pixels and " + std::to_string(max_side) +
            " on a side, got " + std::to_string(height) + " x " + std::to_string(width));
  }
}

inline void check_plane(std::size_t size, std::uint32_t height, std::uint32_t width, const std::string & name)
{
  if (size != static_cast<std::uint64_t>(height) * width) {
    throw MaskError(
            name + " data must hold " + size_text(height, width) + " bytes, got " + std::to_string(size));
  }
}

inline void check_bits(std::size_t size, std::uint32_t height, std::uint32_t width)
{
  const auto pixels = static_cast<std::uint64_t>(height) * width;
  const auto expected = pixels / 8 + (pixels % 8 != 0);
  if (size != expected) {
    throw MaskError(
            "BITS data must hold " + std::to_string(expected) + " bytes for " + std::to_string(height) + " x " +
            std::to_string(width) + " pixels, got " + std::to_string(size));
  }
}

inline void check_runs(const std::uint8_t * data, std::size_t size, std::uint32_t height, std::uint32_t width)
{
  if (size % 4 != 0) {
    throw MaskError("RLE data must hold 4 bytes a run, got " + std::to_string(size) + " bytes");
  }
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < size; i += 4) {
    total += run_at(data + i);
  }
  if (total != static_cast<std::uint64_t>(height) * width) {
    throw MaskError(
            "RLE runs must sum to " + size_text(height, width) + " pixels, got " + std::to_string(total));
  }
}

}  // namespace detail

/// Throw a MaskError unless `decode` can read the data. An InstanceMask without a mask (None) is not one with an empty
/// mask, so it is refused: look at `encoding` first where None may come.
inline void check(
  const std::uint8_t * data, std::size_t size, std::uint32_t height, std::uint32_t width, std::uint8_t encoding)
{
  if (encoding >= static_cast<std::uint8_t>(Encoding::Mono8) && encoding <= static_cast<std::uint8_t>(Encoding::Prob8)) {
    detail::check_size(height, width);
  }
  switch (static_cast<Encoding>(encoding)) {
    case Encoding::None:
      throw MaskError("encoding NONE holds no mask to decode");
    case Encoding::Mono8:
      return detail::check_plane(size, height, width, "MONO8");
    case Encoding::Bits:
      return detail::check_bits(size, height, width);
    case Encoding::Rle:
      return detail::check_runs(data, size, height, width);
    case Encoding::Prob8:
      return detail::check_plane(size, height, width, "PROB8");
  }
  throw MaskError(
          "encoding must be one of 0 (NONE), 1 (MONO8), 2 (BITS), 3 (RLE), 4 (PROB8), got " +
          std::to_string(encoding));
}

/// Decode the mask of the crop into a buffer of the caller's: height * width bytes, row by row, 255 or 0.
///
/// @param data InstanceMask::data, `size` bytes; may be null where there are none.
/// @param out At least height * width bytes; untouched if this throws.
/// @throws MaskError see `check`.
inline void decode(
  const std::uint8_t * data, std::size_t size, std::uint32_t height, std::uint32_t width, std::uint8_t encoding,
  std::uint8_t * out)
{
  check(data, size, height, width, encoding);
  const auto pixels = static_cast<std::size_t>(height) * width;
  const auto byte_of = [](bool is_set) {return static_cast<std::uint8_t>(is_set ? 255 : 0);};
  switch (static_cast<Encoding>(encoding)) {
    case Encoding::Bits:
      for (std::size_t i = 0; i < pixels; ++i) {
        out[i] = byte_of(((data[i / 8] >> (7 - i % 8)) & 1) != 0);
      }
      return;
    case Encoding::Rle:
      for (std::size_t i = 0; i < size; i += 4) {
        out = std::fill_n(out, detail::run_at(data + i), byte_of(i % 8 != 0));
      }
      return;
    default:
      const int least = static_cast<Encoding>(encoding) == Encoding::Prob8 ? 128 : 1;
      for (std::size_t i = 0; i < pixels; ++i) {
        out[i] = byte_of(data[i] >= least);
      }
  }
}

/// The mask of the crop: height * width bytes, row by row, 255 or 0. Nothing is allocated for data that do not fit.
///
/// @throws MaskError see `check`.
inline std::vector<std::uint8_t> decode(
  const std::uint8_t * data, std::size_t size, std::uint32_t height, std::uint32_t width, std::uint8_t encoding)
{
  check(data, size, height, width, encoding);
  std::vector<std::uint8_t> out(static_cast<std::size_t>(height) * width);
  decode(data, size, height, width, encoding, out.data());
  return out;
}

/// The same from InstanceMask::data.
inline std::vector<std::uint8_t> decode(
  const std::vector<std::uint8_t> & data, std::uint32_t height, std::uint32_t width, std::uint8_t encoding)
{
  return decode(data.data(), data.size(), height, width, encoding);
}

/// Probability of the crop, height * width floats in 0..1, row by row, from data with the encoding Prob8.
///
/// @throws MaskError the length of the data is not height * width.
inline std::vector<float> decode_probability(
  const std::uint8_t * data, std::size_t size, std::uint32_t height, std::uint32_t width)
{
  detail::check_plane(size, height, width, "PROB8");
  std::vector<float> out(size);
  std::transform(data, data + size, out.begin(), [](std::uint8_t level) {return static_cast<float>(level) / 255.0f;});
  return out;
}

/// Write a value into an image wherever the mask of a crop is set; the other pixels stay.
///
/// @param mask height * width bytes, as `decode` gives it.
/// @param x First column of the crop in the image; `y` its first row.
/// @param image image_height * image_width pixels, row by row: 255 makes a mask, ids make a label image.
/// @throws MaskError the mask is of another size, or the crop does not lie inside the image.
template<typename Pixel>
void paste(
  const std::vector<std::uint8_t> & mask, std::uint32_t height, std::uint32_t width, std::uint32_t x, std::uint32_t y,
  Pixel value, Pixel * image, std::uint32_t image_height, std::uint32_t image_width)
{
  detail::check_plane(mask.size(), height, width, "mask");
  const auto right = static_cast<std::uint64_t>(x) + width;
  const auto bottom = static_cast<std::uint64_t>(y) + height;
  if (right > image_width || bottom > image_height) {
    throw MaskError(
            "crop must lie inside the image, columns 0.." + std::to_string(image_width) + " and rows 0.." +
            std::to_string(image_height) + ", got columns " + std::to_string(x) + ".." + std::to_string(right) +
            " and rows " + std::to_string(y) + ".." + std::to_string(bottom));
  }
  for (std::uint32_t row = 0; row < height; ++row) {
    const std::uint8_t * from = mask.data() + static_cast<std::size_t>(row) * width;
    Pixel * to = image + (static_cast<std::size_t>(y) + row) * image_width + x;
    for (std::uint32_t column = 0; column < width; ++column) {
      to[column] = from[column] != 0 ? value : to[column];
    }
  }
}

}  // namespace masks
}  // namespace maskrnn_ros

#endif  // MASKRNN_ROS__MASKS_HPP_
