// SPDX-License-Identifier: Apache-2.0
// Decodes what test_masks_cpp.py writes to it. A case: height, width, encoding, x, y, image height, image width, bytes,
// all uint32, then the data. The answer: 0 and the pasted image as uint16 with value 7, then, of Prob8, the
// probabilities; or 1, the length of the message and the message.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "maskrnn_ros/masks.hpp"

namespace
{

template<typename Value>
void put(const Value * values, std::size_t count)
{
  std::cout.write(reinterpret_cast<const char *>(values), static_cast<std::streamsize>(count * sizeof(Value)));
}

void answer(const std::uint32_t (& head)[8], const std::vector<std::uint8_t> & data)
{
  using maskrnn_ros::masks::decode;
  const auto encoding = static_cast<std::uint8_t>(head[2]);
  const auto mask = decode(data, head[0], head[1], encoding);
  std::vector<std::uint8_t> own(mask.size() + 1, 99);
  decode(data.data(), data.size(), head[0], head[1], encoding, own.data());
  if (own.back() != 99 || !std::equal(mask.begin(), mask.end(), own.begin())) {
    throw std::logic_error("the two ways to decode differ");
  }
  std::vector<std::uint16_t> image(static_cast<std::size_t>(head[5]) * head[6]);
  const std::uint16_t value = 7;
  maskrnn_ros::masks::paste(mask, head[0], head[1], head[3], head[4], value, image.data(), head[5], head[6]);
  std::vector<float> probability;
  if (encoding == static_cast<std::uint8_t>(maskrnn_ros::masks::Encoding::Prob8)) {
    probability = maskrnn_ros::masks::decode_probability(data.data(), data.size(), head[0], head[1]);
  }
  const std::uint32_t fine = 0;
  put(&fine, 1);
  put(image.data(), image.size());
  put(probability.data(), probability.size());
}

}  // namespace

int main()
{
  std::uint32_t head[8];
  while (std::cin.read(reinterpret_cast<char *>(head), sizeof(head))) {
    std::vector<std::uint8_t> data(head[7]);
    std::cin.read(reinterpret_cast<char *>(data.data()), head[7]);
    try {
      answer(head, data);
    } catch (const maskrnn_ros::masks::MaskError & error) {
      const std::string text = error.what();
      const std::uint32_t failed[2] = {1, static_cast<std::uint32_t>(text.size())};
      put(failed, 2);
      put(text.data(), text.size());
    }
  }
  return 0;
}
