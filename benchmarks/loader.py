"""Making views: this package against the published recipe of facebookresearch/dino on PIL and torchvision.

python benchmarks/loader.py            # crops per CPU second of one core, in paired rounds, and their ratios
python benchmarks/loader.py --camera   # ours with turns, motion blur and recompression, each in every view, and without
python benchmarks/loader.py --index 5  # memory and start-up time of an index of 5 million made-up crops

Crops are 224 px JPEGs: the hand photos of ../shared/data where they are, else smoothed noise.
"""

import argparse
import functools
import io
import random
import resource
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "hand_digits.zip"
SIDE_PX, NUM_CROPS, ROUNDS = 224, 100, 5
SIZES = {"2 x 224 + 8 x 96": (224, 96), "2 x 112 + 8 x 48": (112, 48)}
GLOBAL_SCALE, LOCAL_SCALE, FLIP_PROB = (0.4, 1.0), (0.05, 0.4), 0.5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES_OF_A_VIDEO = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=float, metavar="MILLIONS", help="measure an index of this many crops instead")
    parser.add_argument("--camera", action="store_true", help="measure turns, motion blur and recompression instead")
    args = parser.parse_args()
    if args.index is not None:
        measure_index(int(args.index * 1e6))
    elif args.camera:
        compare_camera()
    else:
        compare()


def compare() -> None:
    """Print the rates of the three pipelines and their ratios, for each size of views."""
    import cv2
    import torch

    from signstreams.pretrain.settings import AugmentationConfig
    from signstreams.pretrain.views import ViewMaker

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    jpegs = crops()
    print(f"{len(jpegs)} crops of {SIDE_PX} px, {sum(map(len, jpegs)) / len(jpegs) / 1000:.1f} kB; one core")
    for name, (global_px, local_px) in SIZES.items():
        config = AugmentationConfig(
            global_px=global_px, local_px=local_px, local_scale=list(LOCAL_SCALE), flip_prob=FLIP_PROB
        )
        whole, half = ViewMaker(config), ViewMaker(config, is_photometric=False)
        rng = np.random.default_rng(0)
        pipelines: dict[str, tuple[Callable[[bytes], object], int]] = {
            "PIL + torchvision": (reference(global_px, local_px), 25),
            "ours, all on the CPU": (functools.partial(whole, rng=rng), 250),
            "ours, colour and blur left to the device": (functools.partial(half, rng=rng), 250),
        }
        print_rates(name, pipelines, jpegs)


def compare_camera() -> None:
    """Print the rates with each of the camera's settings in every view, and their ratios to that without."""
    import cv2

    from signstreams.pretrain.settings import AugmentationConfig
    from signstreams.pretrain.views import ViewMaker

    cv2.setNumThreads(1)
    jpegs = crops()
    settings = {"none": {}, "turn_deg": {"turn_deg": 20.0}}
    settings |= {key: {key: 1.0} for key in ("motion_blur_prob", "recompress_prob")}
    settings["all three, the last two at .2"] = {"turn_deg": 20.0, "motion_blur_prob": 0.2, "recompress_prob": 0.2}
    for name, (global_px, local_px) in SIZES.items():
        for is_photometric in (True, False):
            rng = np.random.default_rng(0)
            pipelines: dict[str, tuple[Callable[[bytes], object], int]] = {}
            for label, values in settings.items():
                sizes = {"global_px": global_px, "local_px": local_px, "local_scale": list(LOCAL_SCALE)}
                maker = ViewMaker(AugmentationConfig(**sizes, **values), is_photometric=is_photometric)
                pipelines[label] = functools.partial(maker, rng=rng), 250
            print_rates(name + ("" if is_photometric else ", colour and blur left to the device"), pipelines, jpegs)


def print_rates(title: str, pipelines: dict[str, tuple[Callable[[bytes], object], int]], jpegs: list[bytes]) -> None:
    """Measure pipelines, each with its number of crops, in turn, and print rates and ratios to the first."""
    rates: dict[str, list[float]] = {label: [] for label in pipelines}
    for _ in range(ROUNDS):
        for label, (work, count) in pipelines.items():
            rates[label].append(crops_per_cpu_s(work, jpegs, count))
    print(f"\n{title}, crops per CPU second: median of {ROUNDS} rounds (least to most); ratio to the first, paired")
    base = next(iter(rates.values()))
    for label, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        median = statistics.median(values)
        print(f"  {label:<42} {median:7.0f} ({min(values):.0f} to {max(values):.0f})  {ratio:5.2f}")


def crops_per_cpu_s(work: Callable[[bytes], object], jpegs: list[bytes], count: int) -> float:
    """Crops per CPU second of this process."""
    work(jpegs[0])
    started_s = time.process_time()
    for i in range(count):
        work(jpegs[i % len(jpegs)])
    return count / (time.process_time() - started_s)


def reference(global_px: int, local_px: int) -> Callable[[bytes], object]:
    """DataAugmentationDINO by its published recipe, with PIL's own operations."""
    from PIL import Image, ImageFilter, ImageOps
    from torchvision import transforms

    def blur(prob: float) -> Callable[[Image.Image], Image.Image]:
        radius = ImageFilter.GaussianBlur
        return lambda view: view.filter(radius(random.uniform(0.1, 2.0))) if random.random() < prob else view

    def solarize(view: Image.Image) -> Image.Image:
        return ImageOps.solarize(view) if random.random() < 0.2 else view

    def view(
        side_px: int, scale: tuple[float, float], *after: Callable[[Image.Image], Image.Image]
    ) -> Callable[[Image.Image], object]:
        made: Callable[[Image.Image], object] = transforms.Compose(
            [
                transforms.RandomResizedCrop(side_px, scale=scale, interpolation=Image.Resampling.BICUBIC),
                transforms.RandomHorizontalFlip(FLIP_PROB),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                transforms.RandomGrayscale(0.2),
                *after,
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
        return made

    views = [
        view(global_px, GLOBAL_SCALE, blur(1.0)),
        view(global_px, GLOBAL_SCALE, blur(0.1), solarize),
        *[view(local_px, LOCAL_SCALE, blur(0.5))] * 8,
    ]

    def make(jpeg: bytes) -> list[object]:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        return [one(image) for one in views]

    return make


def crops() -> list[bytes]:
    """JPEGs of 224 px."""
    import cv2

    if PHOTOS.exists():
        with zipfile.ZipFile(PHOTOS) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(".jpg")]
            chosen = names[:: len(names) // NUM_CROPS][:NUM_CROPS]
            read = [cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR) for name in chosen]
            images = [image for image in read if image is not None]
    else:
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8) for _ in range(NUM_CROPS)]
        images = [cv2.GaussianBlur(image, (0, 0), 3) * 3 - 255 for image in noise]
    sized = [cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC) for image in images]
    return [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for image in sized]


def measure_index(count: int) -> None:
    """Archives of 10,000 tiny members: how long until the first batch's crops are known, and the memory it takes."""
    from signstreams.formats.crops import CropWriter
    from signstreams.pretrain.crop_index import build_index
    from signstreams.pretrain.sampler import BatchPlan, CropGroups

    with tempfile.TemporaryDirectory() as folder:
        for video in range(count // FRAMES_OF_A_VIDEO):
            with CropWriter(Path(folder) / f"video_{video:06d}.zip", f"video_{video:06d}") as writer:
                for frame in range(FRAMES_OF_A_VIDEO):
                    writer.add(frame, b"jpeg")
        before, started_s = peak_mib(), time.perf_counter()
        index, problems = build_index([folder])
        assert not problems
        listed_s = time.perf_counter() - started_s
        digest_s = timed(lambda: index.digest)
        plan = BatchPlan(CropGroups.of(index.video, index.frame), batch_size=256, world_size=1, seed=0)
        order_s = timed(lambda: next(plan.batches(0, 0, 1)))
        columns = (index.video, index.frame, index.file, index.offset, index.size, index.crc)
        names_bytes = sum(len(name) + 8 for names in (index.videos, index.files) for name in names)
        index_mib = (sum(column.nbytes for column in columns) + names_bytes) / 2**20
        print(f"{len(index):,} crops in {index.video[-1] + 1} archives: index {index_mib:.0f} MiB,")
        print(f"listed in {listed_s:.2f} s, digest {digest_s:.2f} s, groups and order of a pass {order_s:.2f} s,")
        print(f"peak memory of the process {before:.0f} MiB before, {peak_mib():.0f} MiB after")


def timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
