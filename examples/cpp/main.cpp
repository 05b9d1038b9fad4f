// Predicts and explains images by a compiled package, without Python:
//
//     python -m lrp_lightning export --model torchvision:resnet18 --format compiled --out explain.pt2
//     ./build/explain explain.pt2 images.f32 2 3 224 224
//
// images.f32 holds the prepared images as raw float32, as images.numpy().tofile("images.f32") writes them; its shape follows.
// How the model wants them prepared is printed first, as the package says it.

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

at::Tensor read(const std::string& path, const std::vector<int64_t>& shape) {
  at::Tensor images = at::empty(shape, at::kFloat);
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || static_cast<int64_t>(file.tellg()) != static_cast<int64_t>(images.nbytes())) {
    throw std::runtime_error(path + " must hold " + std::to_string(images.numel()) + " float32 values");
  }
  file.seekg(0);
  file.read(static_cast<char*>(images.data_ptr()), static_cast<std::streamsize>(images.nbytes()));
  return images;
}

void explain(const std::string& package, const at::Tensor& images) {
  torch::inductor::AOTIModelPackageLoader loader(package);
  std::cout << loader.get_metadata().at("explanation.json") << "\n";

  // the output, the relevance of the images, and of each layer which neurons are critical
  const std::vector<at::Tensor> found = loader.run({images});
  const at::Tensor predicted = found.at(0).argmax(1), logits = found.at(0).amax(1);
  const at::Tensor relevance = found.at(1).flatten(1).sum(1);
  for (int64_t n = 0; n < images.size(0); ++n) {
    int64_t critical = 0;
    for (size_t layer = 2; layer < found.size(); ++layer) {
      critical += found[layer][n].sum().item<int64_t>();
    }
    std::cout << "image " << n << ": class " << predicted[n].item<int64_t>() << ", logit " << logits[n].item<float>()
              << ", relevance " << relevance[n].item<float>() << ", " << critical << " critical neurons\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: explain PACKAGE.pt2 IMAGES.f32 N C H W\n";
    return 2;
  }
  try {
    std::vector<int64_t> shape;
    for (int i = 3; i < argc; ++i) {
      shape.push_back(std::stoll(argv[i]));
    }
    explain(argv[1], read(argv[2], shape));
  } catch (const std::exception& error) {
    std::cerr << "explain: " << error.what() << "\n";
    return 2;
  }
  return 0;
}
