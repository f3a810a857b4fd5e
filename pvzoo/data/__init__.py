"""Data: one table of images from every data set, and checks of what was copied.

An adapter is built as ``build(params)``; its ``scan(root)`` gives a :class:`~pvzoo.data.table.Table`, and its
``expected`` holds the published counts. This module holds the light part: parameters and names.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ..hookspecs import Register, hookimpl
from ..registry import Params

Spectrum = Literal["460", "630", "700", "850", "940", "WHT"]
Band = Literal["Blue", "Green", "Red", "NIR"]
ModalityName = Literal["palm", "vein"]
Phone = Literal["iPhone", "huawei", "LG", "MI8", "Samsung"]
Light = Literal["Flash", "Nature"]
PairingName = Literal["simultaneous", "same_sample", "same_identity", "virtual"]


class NumberedPalmsParams(Params):
    """Data sets that number palms and do not say whose they are."""

    two_hands: bool = Field(
        False, description="palms 1 and 2 are one person's, 3 and 4 the next one's; else each palm is a subject"
    )


class PalmVeinParams(Params):
    """Data sets of which parts are chosen as palm and as vein."""

    parts: ClassVar[tuple[str, str]] = ("palm", "vein")

    @model_validator(mode="after")
    def _two_parts(self) -> PalmVeinParams:
        palm, vein = (getattr(self, part) for part in self.parts)
        if palm == vein:
            what = "null: nothing is left" if palm is None else f"{palm!r}: choose two, or null for one of them"
            raise ValueError(f"{self.parts[0]} and {self.parts[1]} are both {what}")
        return self


class TongjiParams(NumberedPalmsParams, PalmVeinParams):
    """Tongji palmprint and palm vein."""

    parts = ("palm_root", "vein_root")

    palm_root: str | None = Field(
        "ROI", description="folder with session1 and session2 of the palmprints, in DIR or anywhere; null: none"
    )
    vein_root: str | None = Field(
        "Palmvein", description="folder with session1 and session2 of the veins, in DIR or anywhere; null: none"
    )


class FlatParams(NumberedPalmsParams):
    """Copies of Tongji that number palms from 0 or from 1."""

    first: Literal[0, 1] = Field(1, description="the number of the first palm; matters with two_hands")


class CasiaParams(PalmVeinParams):
    """CASIA-MS."""

    palm: Spectrum | None = Field("460", description="spectrum that counts as palm, 460 nm or WHT (white); null: none")
    vein: Spectrum | None = Field("850", description="spectrum that counts as vein, 850 or 940 nm; null: none")

    @field_validator("palm", "vein", mode="before")
    @classmethod
    def _written_as_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value


class PolyuMsParams(NumberedPalmsParams, PalmVeinParams):
    """PolyU multispectral."""

    palm: Band | None = Field("Blue", description="band that counts as palm; null: none")
    vein: Band | None = Field("NIR", description="band that counts as vein; null: none")


class XjtuParams(Params):
    """XJTU-UP."""

    phones: tuple[Phone, ...] = Field((), description="phones to use; all if empty")
    lights: tuple[Light, ...] = Field((), description="kinds of light to use; all if empty")


class VeraParams(Params):
    """VERA PalmVein."""

    images: Literal["raw", "roi"] = Field("roi", description="whole images, or regions of interest")


class ScutParams(NumberedPalmsParams):
    """SCUT_PV_v1."""

    scale: float = Field(1.0, description="which ROI/scale... folder")


class TxtListParams(Params):
    """Lists of ``path label`` lines."""

    lists: tuple[str, ...] = Field(("train.txt", "test.txt"), min_length=1, description="the n-th list is session n")
    one_session: bool = Field(
        False, description="the lists divide one session; samples are counted through all lists, and session is 0"
    )
    images: str = Field(".", description="folder that the paths start from, in DIR or anywhere")
    modality: ModalityName = Field("palm", description="what the images show")


class PairCsvParams(Params):
    """A CSV of pairs."""

    file: str = Field("pairs.csv", description="the CSV in DIR; or give the CSV itself as DIR")
    pairing: PairingName = Field("same_identity", description="how sure it is that the images of a row belong together")


class FolderPairParams(Params):
    """A folder a modality, with equal names."""

    pattern: str = Field(
        r"(?P<subject>.+?)(_(?P<hand>left|right)(_(?P<session>\d+))?)?_(?P<sample>\d+)",
        description="regular expression of names without extension; groups subject, sample; if wanted hand, session",
    )
    pairing: PairingName = Field("same_sample", description="how sure it is that images of one name belong together")

    @field_validator("pattern")
    @classmethod
    def _has_groups(cls, pattern: str) -> str:
        try:
            groups = set(re.compile(pattern).groupindex)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if not {"subject", "sample"} <= groups <= {"subject", "sample", "hand", "session"}:
            has = ", ".join(sorted(groups)) or "none"
            raise ValueError(f"needs groups (?P<subject>...) and (?P<sample>...), may have hand, session; it has {has}")
        return pattern


class VirtualPairParams(Params):
    """People put together from two data sets."""

    palm_layout: str = Field(description="layout of the palm set")
    vein_layout: str = Field(description="layout of the vein set")
    palm_root: str = Field("palm", description="its folder, in DIR or anywhere")
    vein_root: str = Field("vein", description="its folder, in DIR or anywhere")
    palm_params: dict[str, Any] = Field({}, description="parameters of the palm layout")
    vein_params: dict[str, Any] = Field({}, description="parameters of the vein layout")


@hookimpl
def register_datasets(register: Register) -> None:
    at = "pvzoo.data.adapters."
    register("tongji", build=at + "tongji:Tongji", params=TongjiParams, summary="Tongji palmprint and palm vein")
    register(
        "tongji600_flat",
        build=at + "tongji:Tongji600Flat",
        params=FlatParams,
        summary="Tongji as derived copies name it, PalmPrint_<id>_<sample>; finds the 300 x 40 copies",
    )
    register("casia_ms", build=at + "casia:CasiaMs", params=CasiaParams, summary="CASIA multispectral palmprint")
    register("polyu_ms", build=at + "polyu:PolyuMs", params=PolyuMsParams, summary="PolyU multispectral palmprint")
    register("polyu2", build=at + "polyu:Polyu2", params=NumberedPalmsParams, summary="PolyU palmprint II")
    register("cuhksz", build=at + "cuhksz:Cuhksz", summary="CUHKSZ-v1, RGB and infrared at once")
    register("iitd", build=at + "palmprint:Iitd", summary="IIT Delhi touchless palmprint V1")
    register("xjtu_up", build=at + "palmprint:XjtuUp", params=XjtuParams, summary="XJTU-UP, palmprints of five phones")
    register("mpdv2", build=at + "palmprint:Mpdv2", summary="MPDv2, palmprints of two phones")
    register("vera", build=at + "vein:Vera", params=VeraParams, summary="VERA palm vein")
    register("put", build=at + "vein:Put", summary="PUT vein, palms")
    register("scut_pv", build=at + "vein:ScutPv", params=ScutParams, summary="SCUT palm vein v1")
    register("txt_list", build=at + "lists:TxtList", params=TxtListParams, summary="CCNet's lists of 'path label'")
    register("pair_csv", build=at + "lists:PairCsv", params=PairCsvParams, summary="a CSV with a pair a row")
    register("folder_pair", build=at + "folders:FolderPair", params=FolderPairParams, summary="palm/NAME, vein/NAME")
    register(
        "virtual_pair",
        build=at + "virtual:VirtualPair",
        params=VirtualPairParams,
        summary="the n-th person of a palm set with the n-th of a vein set; stamped virtual",
    )
