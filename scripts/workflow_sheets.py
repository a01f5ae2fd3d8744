"""The shared workflows as data: nodes with their inputs, in columns from left to right, each column a group box.

``make_workflows.py`` lets ComfyUI's own page turn these into files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

OURS = "MMAudioGraph"
TINY = "tiny (embedded)"
VIDEO_FILE, SOUND_FILE, LORA_FILE = "example.mp4", "example.flac", "mmaudio_example_lora.safetensors"
NOTE_CHARACTERS, NOTE_LINE = 52, 13
VARIANT_WORDS = (
    f"It runs at once with **{TINY}**, which knows the small made-up world that it was trained on and nothing else. "
    "For real sound choose another *variant*, such as large_44k_v2."
)


@dataclass(frozen=True)
class Handle:
    """A node of a sheet; ``handle[0]`` is its first output as an API prompt writes it."""

    node_id: str

    def __getitem__(self, output: int) -> list[Any]:
        return [self.node_id, output]


@dataclass
class Sheet:
    """One workflow: an API prompt and where its nodes stand."""

    name: str
    note: str = ""
    prompt: dict[str, Any] = field(default_factory=dict)
    columns: list[dict[str, Any]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """Ids of the nodes that the thumbnail shows."""

    @property
    def note_height(self) -> int:
        """Pixels that the note needs in a column of usual width."""
        return 90 + sum(NOTE_LINE * (len(line) // NOTE_CHARACTERS + 1) for line in self.note.split("\n"))

    def column(self, title: str, width: int = 330) -> None:
        """Begins a column; the nodes added next stand in it, from the top down."""
        self.columns.append({"title": title, "width": width, "nodes": []})

    def add(self, kind: str, height: int = 0, title: str = "", **inputs: Any) -> Handle:
        """A node, at least ``height`` pixels high, under ``title`` or its own name."""
        node_id = str(len(self.prompt) + 1)
        self.prompt[node_id] = {"class_type": kind, "inputs": inputs}
        if title:
            self.prompt[node_id]["_meta"] = {"title": title}
        self.columns[-1]["nodes"].append({"id": node_id, "height": height})
        return Handle(node_id)

    def ours(self, kind: str, height: int = 0, title: str = "", **inputs: Any) -> Handle:
        """A node of the pack."""
        return self.add(OURS + kind, height, title, **inputs)

    def load_variant(self) -> Handle:
        return self.ours("LoadVariant", variant=TINY, download="no", precision="auto")

    def load_video(self) -> Handle:
        return self.add("LoadVideo", 320, file=VIDEO_FILE)

    def encode(self, variant: Handle, **pictures: Any) -> tuple[Handle, Handle]:
        """The column of features and prompt."""
        self.column("Encode", 360)
        features = self.ours("ExtractFeatures", encoders=variant[2], **pictures)
        words = {"prompt": "a ball bounces", "negative_prompt": "music"}
        return features, self.ours("EncodePrompt", 260, encoders=variant[2], features=features[0], **words)

    def decode(self, latent: list[Any], vae: list[Any]) -> Handle:
        return self.show(self.ours("Decode", 330, latent=latent, vae=vae))

    def show(self, node: Handle) -> Handle:
        """Puts the node into the thumbnail."""
        self.shown.append(node.node_id)
        return node

    def save_audio(self, audio: list[Any]) -> Handle:
        return self.show(self.add("SaveAudio", 120, audio=audio, filename_prefix=f"audio/MMAudio_{self.name}"))

    def save_video(self, video: list[Any]) -> Handle:
        prefix = f"video/MMAudio_{self.name}"
        return self.show(self.add("SaveVideo", 340, video=video, filename_prefix=prefix, format="auto", codec="auto"))


def video_to_audio(sheet: Sheet) -> None:
    sheet.note = (
        "**Sound for a video.** Choose a video and say what should be heard; the prompt may stay empty. Sound and spectrogram "
        f"are shown on *Decode*, the video with its new sound is saved.\n\n{VARIANT_WORDS}"
    )
    sheet.column("Load")
    variant, video = sheet.load_variant(), sheet.load_video()
    features, prompt = sheet.encode(variant, video=video[0])
    sheet.column("Sample")
    latent = sheet.ours("EmptyLatent", model=variant[0], features=features[0])
    made = sheet.ours("Sampler", model=variant[0], positive=prompt[0], negative=prompt[1], latent=latent[0])
    sheet.column("Decode")
    sound = sheet.decode(made[0], variant[1])
    both = sheet.ours("CombineVideoAudio", video=video[0], audio=sound[0])
    sheet.column("Save", 400)
    sheet.save_video(both[0])


def text_to_audio(sheet: Sheet) -> None:
    sheet.note = (
        "**Sound from words alone.** Write what should be heard and how long, in *duration_s* of the latent. Model, VAE and "
        "encoders are loaded one by one here; Synchformer is not needed and stays unloaded.\n\n"
        "It runs at once with the embedded files, which know a small made-up world and nothing else. For real sound put "
        "files into models/mmaudio and choose them; model, VAE and vocoder must be of one sample rate."
    )
    sheet.column("Load")
    model = sheet.ours("LoadModel", model_file=TINY)
    vae = sheet.ours("LoadVAE", vae_file=TINY, vocoder_file=TINY)
    encoders = sheet.ours("LoadEncoders", clip_file=TINY, synchformer_file="none")
    sheet.column("Encode", 360)
    words = {"prompt": "rain on a tin roof, thunder far away", "negative_prompt": "music, speech"}
    prompt = sheet.ours("EncodePrompt", 300, encoders=encoders[0], **words)
    sheet.column("Sample")
    latent = sheet.ours("EmptyLatent", model=model[0], duration_s=8.0)
    made = sheet.ours("Sampler", model=model[0], positive=prompt[0], negative=prompt[1], latent=latent[0])
    sheet.column("Decode and save", 360)
    sound = sheet.decode(made[0], vae[0])
    sheet.save_audio(sound[0])


def all_in_one(sheet: Sheet) -> None:
    sheet.note = (
        "**Everything in one node.** Connect a video (or images with fps, or nothing for sound from words), write a prompt, "
        f"run.\n\n{VARIANT_WORDS} With *download* set to yes missing files are fetched."
    )
    sheet.column("Load", 360)
    video = sheet.load_video()
    sheet.column("Generate", 400)
    made = sheet.ours("Generate", 820, video=video[0], prompt="a ball bounces", negative_prompt="music", variant=TINY)
    sheet.show(made)
    sheet.column("Save", 400)
    sheet.save_video(made[1])
    sheet.save_audio(made[0])


def after_video_generation(sheet: Sheet) -> None:
    sheet.note = (
        "**Sound for what a video model made.** The first three nodes stand in for your video model: connect the IMAGE output "
        "of its *VAE Decode* instead. Type its frame rate once in *Frames per second* (Wan 16, LTX 24 or 25, Hunyuan 24): 81 "
        f"frames at 16 fps are 5.06 s, and so long is the sound.\n\n{VARIANT_WORDS}"
    )
    sheet.column("Your video model")
    video = sheet.load_video()
    parts = sheet.add("GetVideoComponents", video=video[0])
    frames = sheet.add("ImageFromBatch", title="81 frames, as of VAE Decode", image=parts[0], batch_index=0, length=81)
    sheet.column("Frame rate and model")
    fps = sheet.add("PrimitiveFloat", title="Frames per second", value=16.0)
    variant = sheet.load_variant()
    features, prompt = sheet.encode(variant, images=frames[0], fps=fps[0])
    sheet.column("Sample")
    latent = sheet.ours("EmptyLatent", model=variant[0], features=features[0])
    made = sheet.ours("Sampler", model=variant[0], positive=prompt[0], negative=prompt[1], latent=latent[0])
    sheet.column("Decode")
    sound = sheet.decode(made[0], variant[1])
    silent = sheet.add("CreateVideo", images=frames[0], fps=fps[0])
    both = sheet.ours("CombineVideoAudio", video=silent[0], audio=sound[0])
    sheet.column("Save", 400)
    sheet.save_video(both[0])


def ksampler_lora(sheet: Sheet) -> None:
    sheet.note = (
        "**ComfyUI's own KSampler, with a LoRA.** Choose a LoRA that was trained on your variant; *Load LoRA* lists those for "
        f"MMAudio in models/loras and refuses one of another variant. {LORA_FILE} fits the embedded model; "
        "scripts/make_examples.py writes it. Use euler and simple with 25, 50 or 100 steps.\n\n" + VARIANT_WORDS
    )
    sheet.column("Load", 360)
    variant = sheet.load_variant()
    model = sheet.ours("LoadLoRA", model=variant[0], lora_file=LORA_FILE, strength=1.0)
    sheet.column("Encode", 360)
    words = {"prompt": "footsteps on gravel", "negative_prompt": "music, speech"}
    prompt = sheet.ours("EncodePrompt", 300, encoders=variant[2], **words)
    sheet.column("Sample")
    latent = sheet.ours("EmptyLatent", model=model[0], duration_s=8.0)
    made = sheet.add(
        "KSampler",
        model=model[0],
        positive=prompt[0],
        negative=prompt[1],
        latent_image=latent[0],
        steps=25,
        cfg=4.5,
        sampler_name="euler",
        scheduler="simple",
    )
    sheet.column("Decode and save")
    sheet.show(made)
    sound = sheet.add("VAEDecodeAudio", samples=made[0], vae=variant[1])
    sheet.save_audio(sound[0])


def five_takes(sheet: Sheet) -> None:
    sheet.note = (
        "**Five sounds for one video.** The video is looked at once; *takes* of the sampler says how many sounds are made, "
        "with seeds seed, seed + 1 and so on. All are saved, each in its file. Set *take* of *Combine* to the one you like: "
        f"only the video is written again.\n\n{VARIANT_WORDS}"
    )
    sheet.column("Load")
    variant, video = sheet.load_variant(), sheet.load_video()
    features, prompt = sheet.encode(variant, video=video[0])
    sheet.column("Sample five")
    latent = sheet.ours("EmptyLatent", model=variant[0], features=features[0])
    made = sheet.ours("Sampler", model=variant[0], positive=prompt[0], negative=prompt[1], latent=latent[0], takes=5)
    sheet.column("Decode and save all", 360)
    sound = sheet.decode(made[0], variant[1])
    sheet.save_audio(sound[0])
    sheet.column("The take you like", 400)
    both = sheet.ours("CombineVideoAudio", title="Combine: choose the take", video=video[0], audio=sound[0], take=1)
    sheet.save_video(both[0])


def repair_two_seconds(sheet: Sheet) -> None:
    sheet.note = (
        "**Two seconds made anew.** Everything outside *start_s* and *end_s* stays as it is, *feather_s* blends the edges. The "
        "prompt says what should be heard there. With *duration_s* of Encode Audio beyond the sound's end, and start_s there, "
        f"the sound is continued.\n\n{VARIANT_WORDS}"
    )
    sheet.column("Load")
    variant = sheet.load_variant()
    sound = sheet.add("LoadAudio", 160, audio=SOUND_FILE)
    sheet.column("Encode", 360)
    prompt = sheet.ours("EncodePrompt", 260, encoders=variant[2], prompt="soft rain", negative_prompt="whistle, music")
    latent = sheet.ours("EncodeAudio", audio=sound[0], vae=variant[1])
    marked = sheet.ours("RegenerateSeconds", latent=latent[0], start_s=2.0, end_s=4.0, feather_s=0.1)
    sheet.column("Sample")
    made = sheet.ours("Sampler", model=variant[0], positive=prompt[0], negative=prompt[1], latent=marked[0])
    sheet.column("Decode and save", 360)
    repaired = sheet.decode(made[0], variant[1])
    sheet.save_audio(repaired[0])


def native_custom_sampling(sheet: Sheet) -> None:
    sheet.note = (
        "**ComfyUI's custom sampling.** With *MMAudio: Noise*, *MMAudio: Linear Sigmas*, euler and the same seed it makes the "
        "sound of *MMAudio: Sampler*; another sampler, schedule or guider goes in the same places.\n\n" + VARIANT_WORDS
    )
    sheet.column("Load")
    variant, video = sheet.load_variant(), sheet.load_video()
    features, prompt = sheet.encode(variant, video=video[0])
    sheet.column("Noise, guidance, schedule", 300)
    noise = sheet.ours("Noise")
    guider = sheet.add("CFGGuider", model=variant[0], positive=prompt[0], negative=prompt[1], cfg=4.5)
    sampler = sheet.add("KSamplerSelect", sampler_name="euler")
    sigmas = sheet.ours("LinearSigmas", steps=25)
    latent = sheet.ours("EmptyLatent", model=variant[0], features=features[0])
    sheet.column("Sample and decode")
    made = sheet.add(
        "SamplerCustomAdvanced",
        noise=noise[0],
        guider=guider[0],
        sampler=sampler[0],
        sigmas=sigmas[0],
        latent_image=latent[0],
    )
    sound = sheet.decode(made[0], variant[1])
    both = sheet.ours("CombineVideoAudio", video=video[0], audio=sound[0])
    sheet.column("Save", 400)
    sheet.save_video(both[0])


SHEETS: tuple[Callable[[Sheet], None], ...] = (
    video_to_audio,
    text_to_audio,
    all_in_one,
    after_video_generation,
    ksampler_lora,
    five_takes,
    repair_two_seconds,
    native_custom_sampling,
)


def sheets() -> Iterator[Sheet]:
    """Every workflow, filled in."""
    for fill in SHEETS:
        sheet = Sheet(fill.__name__)
        fill(sheet)
        yield sheet
