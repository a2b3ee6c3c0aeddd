"""Small corpora in the layouts of published ones: frames and videos of the tiny demo corpus, invented sentences."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import av
import cv2

GERMAN = (
    "morgen regnet es im norden .",
    "am tag scheint die sonne .",
    "in der nacht wird es kalt .",
    "im süden regnet es am tag .",
)
ENGLISH = ("Now you fold the paper.", "Hold it like this.", "Then you turn it over.", "That's all there is to it.")
GLOSSES = ("MORGEN REGEN NORD", "TAG SONNE", "NACHT KALT", "SUED REGEN TAG")


@dataclass(frozen=True)
class Span:
    """One sentence of the tiny demo corpus."""

    video: str
    start_s: float
    end_s: float


def spans(tiny: Path) -> list[Span]:
    """Its sentences: two in each of four videos of 4 to 5 s."""
    with (tiny / "meta.csv").open(encoding="utf-8", newline="") as file:
        return [Span(r["video"], float(r["start"]), float(r["end"])) for r in csv.DictReader(file, delimiter=";")]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = "\t") -> Path:
    """A table whose cells hold no delimiter."""
    return write(path, "".join(delimiter.join(map(str, row)) + "\n" for row in (columns, *rows)))


def frames(tiny: Path, span: Span, folder: Path, name: str, size_px: tuple[int, int] = (210, 260)) -> None:
    """Every second picture of a sentence, cut to the shape of ``size_px`` (width, height), as numbered files."""
    folder.mkdir(parents=True)
    width, height = size_px
    number = 0
    first = round(25 * span.start_s)
    with av.open(str(tiny / "videos" / f"{span.video}.mp4")) as video:
        for frame in video.decode(video=0):
            if not span.start_s <= frame.time < span.end_s or (round(25 * frame.time) - first) % 2:
                continue
            image = frame.to_ndarray(format="bgr24")
            wide = round(image.shape[0] * width / height)
            left = (image.shape[1] - wide) // 2
            number += 1
            picture = cv2.resize(image[:, left : left + wide], size_px, interpolation=cv2.INTER_AREA)
            assert cv2.imwrite(str(folder / name.format(number)), picture)


def copy_video(tiny: Path, video: str, target: Path) -> None:
    """A video of the tiny demo corpus under another name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tiny / "videos" / f"{video}.mp4", target)


PARTS = ("train", "train", "train", "train", "dev", "dev", "test", "test")


def phoenix(tiny: Path, root: Path, *, is_2014t: bool = True, below_1: bool = False) -> Path:
    """PHOENIX-2014T or PHOENIX-2014 with eight sentences; returns the folder that a user has after unpacking."""
    release = root / ("PHOENIX-2014-T-release-v3/PHOENIX-2014-T" if is_2014t else "phoenix-2014-multisigner")
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "dev": [], "test": []}
    for number, (span, part) in enumerate(zip(spans(tiny), PARTS, strict=True)):
        name = f"0{number + 1}April_2010_Thursday_heute-669{number}"
        if not is_2014t:
            name += "_default-0"
        folder = release / "features/fullFrame-210x260px" / part / name
        frames(tiny, span, folder / "1" if below_1 else folder, "images{:04d}.png")
        gloss, signer = GLOSSES[number % 4], f"Signer0{1 + number % 3}"
        if is_2014t:
            rows[part].append((name, f"{name}/1/*.png", -1, -1, signer, gloss, GERMAN[number % 4]))
        else:
            rows[part].append((name, f"{name}/1/*.png", signer, gloss))
    for part, found in rows.items():
        manual = release / "annotations/manual"
        if is_2014t:
            columns = ("name", "video", "start", "end", "speaker", "orth", "translation")
            table(manual / f"PHOENIX-2014-T.{part}.corpus.csv", columns, found, "|")
        else:
            table(manual / f"{part}.corpus.csv", ("id", "folder", "signer", "annotation"), found, "|")
    return root


def how2sign(tiny: Path, root: Path, *, cut: bool = False) -> Path:
    """How2Sign with two sentences in each of four videos, whole, or cut to a video per sentence."""
    columns = ["VIDEO_ID", "VIDEO_NAME", "SENTENCE_ID", "SENTENCE_NAME", "START_REALIGNED", "END_REALIGNED", "SENTENCE"]
    splits = {"demo_000": "train", "demo_001": "train", "demo_002": "val", "demo_003": "test"}
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "val": [], "test": []}
    for number, span in enumerate(spans(tiny)):
        split, youtube = splits[span.video], f"-{span.video[-1]}E2sU6zP4Q"
        name, sentence = f"{youtube}-5-rgb_front", f"{youtube}_{number % 2}"
        row = (youtube, name, sentence, f"{sentence}-5-rgb_front", span.start_s, span.end_s, ENGLISH[number % 4])
        rows[split].append(row)
        if cut:
            target = root / f"{split}_rgb_front_clips/raw_videos/{sentence}-5-rgb_front.mp4"
            copy_video(tiny, span.video, target)
        elif number % 2 == 0:
            copy_video(tiny, span.video, root / f"video_level/{split}/rgb_front/raw_videos/{name}.mp4")
    for split, found in rows.items():
        table(root / f"sentence_level/{split}/text/en/raw_text/how2sign_realigned_{split}.csv", columns, found)
    return root


def csl_daily(tiny: Path, root: Path, *, is_json: bool = True) -> Path:
    """CSL-Daily with four sentences; its labels as JSON, or as the pickle's bytes, which nobody may read."""
    texts, glosses = (
        ("今天下雨", "你好", "我喜欢水", "明天见"),
        (["今天", "雨"], ["你", "好"], ["我", "水"], ["明天", "见"]),
    )
    entries, lines = [], ["name|split"]
    for number, (span, text, gloss) in enumerate(zip(spans(tiny)[::2], texts, glosses, strict=True)):
        name = f"S00000{number}_P000{number % 2}_T00"
        frames(tiny, span, root / "sentence/frames_512x512" / name, "{:06d}.jpg", (512, 512))
        words = {"label_gloss": gloss, "label_char": list(text), "label_word": [text], "label_postag": ["v"]}
        entries.append({"name": name, "length": 40, **words})
        lines.append(f"{name}|{('train', 'train', 'dev', 'test')[number]}")
    labels = root / "sentence_label"
    write(labels / "split_1.txt", "\n".join(lines) + "\n")
    if is_json:
        write(labels / "csl2020ct_v2.json", json.dumps(entries, ensure_ascii=False))
    else:
        (labels / "csl2020ct_v2.pkl").write_bytes(b"\x80\x04cos\nsystem\n(X\x0c\x00\x00\x00touch pwned\x85R.")
    return root


def clock(seconds: float, mark: str = ".") -> str:
    """``hh:mm:ss.fff``."""
    whole = round(seconds * 1000)
    return f"{whole // 3600000:02}:{whole // 60000 % 60:02}:{whole // 1000 % 60:02}{mark}{whole % 1000:03}"


def openasl(tiny: Path, root: Path) -> Path:
    """OpenASL with two sentences in each of four videos."""
    splits = {"demo_000": "train", "demo_001": "train", "demo_002": "valid", "demo_003": "test"}
    rows = []
    for number, span in enumerate(spans(tiny)):
        youtube = f"oQ{span.video[-1]}_-d5bY2Kc"
        start, end = clock(span.start_s), clock(span.end_s)
        text = ENGLISH[number % 4]
        rows.append((f"{youtube}-{start}-{end}", youtube, start, end, text, text.lower(), splits[span.video]))
        if number % 2 == 0:
            copy_video(tiny, span.video, root / f"raw-video/{youtube}.mp4")
    table(root / "data/openasl-v1.0.tsv", ["vid", "yid", "start", "end", "raw-text", "tokenized-text", "split"], rows)
    return root


def captions(path: Path, found: Sequence[tuple[float, float, str]]) -> None:
    """A caption file of the kind of its ending."""
    if path.suffix == ".srt":
        blocks = [
            f"{number}\r\n{clock(start, ',')} --> {clock(end, ',')}\r\n{text}\r\n"
            for number, (start, end, text) in enumerate(found, 1)
        ]
        write(path, "\r\n".join(blocks), "utf-8-sig")
    elif path.suffix == ".vtt":
        blocks = [f"{clock(start)} --> {clock(end)} align:start\n{text}\n" for start, end, text in found]
        write(path, "\n".join(["WEBVTT\nKind: captions\nLanguage: en\n", "NOTE invented\n", *blocks]))
    else:
        events = [
            {"tStartMs": round(start * 1000), "dDurationMs": round((end - start) * 1000), "segs": [{"utf8": text}]}
            for start, end, text in found
        ]
        write(path, json.dumps({"wireMagic": "pb3", "events": [{"tStartMs": 0, "id": 1}, *events]}))


def subtitles(tiny: Path, root: Path, endings: Sequence[str] = (".srt", ".vtt", ".srt", ".en.vtt")) -> Path:
    """Four videos with captions beside them."""
    found = spans(tiny)
    for number, ending in enumerate(endings):
        video = f"demo_00{number}"
        copy_video(tiny, video, root / f"talk {number}.mp4")
        own = [(s.start_s, s.end_s, text) for s, text in zip(found, ENGLISH * 2, strict=True) if s.video == video]
        captions(root / f"talk {number}{ending}", own)
    return root


def youtube_asl(tiny: Path, root: Path) -> Path:
    """YouTube-ASL: the list of ids and what yt-dlp makes of it."""
    found = spans(tiny)
    ids = [f"q{number}Zr_-k0vLw" for number in range(4)]
    for number, (video_id, ending) in enumerate(zip(ids, (".en.vtt", ".en.json3", ".en.srt", ".en.vtt"), strict=True)):
        copy_video(tiny, f"demo_00{number}", root / f"downloads/{video_id}.mp4")
        own = [(s.start_s, s.end_s, ENGLISH[number]) for s in found if s.video == f"demo_00{number}"]
        captions(root / f"downloads/{video_id}{ending}", own)
    write(root / "youtube_asl_video_ids.txt", "".join(f"{video_id}\n" for video_id in ids))
    return root


def lsa_t(tiny: Path, root: Path) -> Path:
    """LSA-T's meta.csv with its segments, two rows for each of four videos."""
    rows = []
    for number, span in enumerate(spans(tiny)):
        segments = [("uno", span.start_s, span.start_s + 0.5), ("dos", span.start_s + 0.6, span.end_s)]
        rows.append(
            (f"{span.video}_{number}", span.video, f"Oración número {number % 3}.", "16.532.999.999", str(segments))
        )
        if number % 2 == 0:
            copy_video(tiny, span.video, root / f"videos/{span.video}.mp4")
    table(root / "meta.csv", ("id", "video", "label", "start", "split"), rows, ";")
    text = (root / "meta.csv").read_text(encoding="utf-8").replace(";label;", ";text;", 1)
    write(root / "meta.csv", text)
    return root


Annotations = Sequence[tuple[float, float, str]]


def eaf(
    path: Path,
    tiers: dict[str, Annotations],
    media: Sequence[str],
    *,
    kinds: dict[str, str] | None = None,
    participants: dict[str, str] | None = None,
    origin_ms: int | None = None,
    depends: dict[str, tuple[str, Sequence[str]]] | None = None,
) -> Path:
    """An annotation file as ELAN 6 writes it; ``depends``: tiers whose values belong to those of another tier."""
    slots: list[int] = []
    bodies: list[str] = []
    count = 0
    ids: dict[str, list[str]] = {}

    def tier(name: str, annotations: Iterable[str]) -> str:
        kind, who = (kinds or {}).get(name, "default-lt"), (participants or {}).get(name, "")
        about = f' PARTICIPANT="{escape(who)}"' if who else ""
        return (
            f'    <TIER LINGUISTIC_TYPE_REF="{escape(kind)}"{about} TIER_ID="{escape(name)}">\n'
            + "".join(annotations)
            + "    </TIER>\n"
        )

    for name, found in tiers.items():
        made = []
        for start_s, end_s, value in found:
            count += 1
            slots += [round(start_s * 1000), round(end_s * 1000)]
            ids.setdefault(name, []).append(f"a{count}")
            made.append(
                f'        <ANNOTATION>\n            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a{count}"'
                f' TIME_SLOT_REF1="ts{len(slots) - 1}" TIME_SLOT_REF2="ts{len(slots)}">\n'
                f"                <ANNOTATION_VALUE>{escape(value)}</ANNOTATION_VALUE>\n"
                "            </ALIGNABLE_ANNOTATION>\n        </ANNOTATION>\n"
            )
        bodies.append(tier(name, made))
    for name, (parent, values) in (depends or {}).items():
        made = []
        for owner, value in zip(ids[parent], values, strict=True):
            count += 1
            made.append(
                "        <ANNOTATION>\n"
                f'            <REF_ANNOTATION ANNOTATION_ID="a{count}" ANNOTATION_REF="{owner}">\n'
                f"                <ANNOTATION_VALUE>{escape(value)}</ANNOTATION_VALUE>\n"
                "            </REF_ANNOTATION>\n        </ANNOTATION>\n"
            )
        bodies.append(tier(name, made))
    origin = "" if origin_ms is None else f' TIME_ORIGIN="{origin_ms}"'
    linked = "".join(
        f'        <MEDIA_DESCRIPTOR MEDIA_URL="file:///D:/corpus/{escape(name)}" MIME_TYPE="video/mp4"{origin}'
        f' RELATIVE_MEDIA_URL="./{escape(name)}"/>\n'
        for name in media
    )
    times = "".join(
        f'        <TIME_SLOT TIME_SLOT_ID="ts{number}" TIME_VALUE="{value}"/>\n'
        for number, value in enumerate(slots, 1)
    )
    return write(
        path,
        '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-11-29T06:00:00+00:00"'
        ' FORMAT="3.0" VERSION="3.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">\n'
        f'    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">\n{linked}    </HEADER>\n'
        f"    <TIME_ORDER>\n{times}    </TIME_ORDER>\n{''.join(bodies)}"
        '    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>\n'
        "</ANNOTATION_DOCUMENT>\n",
    )


def hands(found: Sequence[Span], glosses: Sequence[str]) -> tuple[Annotations, Annotations]:
    """Signs of each span, spread over its time: those of the right hand, and every second one on the left as well."""
    right, left = [], []
    for span, gloss in zip(found, glosses, strict=True):
        words = gloss.split()
        step_s = (span.end_s - span.start_s) / len(words)
        for number, word in enumerate(words):
            start_s = span.start_s + number * step_s
            right.append((start_s + 0.02, start_s + step_s - 0.05, word))
            if number % 2:
                left.append((start_s + 0.05, start_s + step_s - 0.05, word))
    return right, left


def dgs(tiny: Path, root: Path) -> Path:
    """DGS-Korpus: two signers, each with a video of their own, in one file; four files with one of them signing."""
    found = spans(tiny)
    for number in range(4):
        who = "AB"[number % 2]
        own = [span for span in found if span.video == f"demo_00{number}"]
        right, left = hands(own, GLOSSES[number % 2 * 2 : number % 2 * 2 + 2])
        texts = GERMAN[number % 2 * 2 : number % 2 * 2 + 2]
        sentences = [(span.start_s, span.end_s, text) for span, text in zip(own, texts, strict=True)]
        names = [f"14{number}_1a1.mp4", f"14{number}_1b1.mp4", f"14{number}_1c.mp4"]
        for name in names[:2]:
            copy_video(tiny, f"demo_00{number}", root / name)
        tiers = {
            f"Deutsche_Übersetzung_{who}": sentences,
            f"Lexem_Gebärde_r_{who}": right,
            f"Lexem_Gebärde_l_{who}": left,
        }
        others = {f"Translation_into_English_{who}": sentences, "Moderator": [(0.0, 1.0, "und dann?")]}
        eaf(root / f"14{number}.eaf", tiers | others, names, participants=dict.fromkeys(tiers, who))
    return root
