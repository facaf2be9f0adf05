"""Model classes of diffusers that are no denoisers, or run no attention of their own, and why control leaves them."""

from __future__ import annotations

from zoo.classes import model_classes

_SEVERAL = "several ControlNets at once: give control each of them"
_CONDITION = "encodes a condition of the denoiser"
_DECODER = "decodes what the denoiser made"
_CONVOLUTIONS = "convolutions and linear layers, without attention"
REASONS = {
    "LegacyModelMixin": "a base class",
    "T2IAdapter": _CONVOLUTIONS,
    "MultiAdapter": _CONVOLUTIONS,
    "MotionAdapter": "carries the motion modules of UNetMotionModel; it is never run itself",
    "ControlNetXSAdapter": "is run as a part of UNetControlNetXSModel",
    "MultiControlNetModel": _SEVERAL,
    "MultiControlNetUnionModel": _SEVERAL,
    "FluxMultiControlNetModel": _SEVERAL,
    "HunyuanDiT2DMultiControlNetModel": _SEVERAL,
    "QwenImageMultiControlNetModel": _SEVERAL,
    "SD3MultiControlNetModel": _SEVERAL,
    "AnimaTextConditioner": _CONDITION,
    "MiniMaxMusic3ConditionEncoder": _CONDITION,
    "AceStepConditionEncoder": _CONDITION,
    "AceStepLyricEncoder": _CONDITION,
    "AceStepTimbreEncoder": _CONDITION,
    "AceStepAudioTokenizer": _CONDITION,
    "AceStepAudioTokenDetokenizer": _DECODER,
    "AudioLDM2ProjectionModel": _CONDITION,
    "StableAudioProjectionModel": _CONDITION,
    "StableAudio3DurationEmbedder": _CONDITION,
    "SpectrogramContEncoder": _CONDITION,
    "SpectrogramNotesEncoder": _CONDITION,
    "UnCLIPTextProjModel": _CONDITION,
    "LearnedClassifierFreeSamplingEmbeddings": _CONDITION,
    "ReduxImageEncoder": _CONDITION,
    "CLIPImageProjection": _CONDITION,
    "StableUnCLIPImageNormalizer": _CONDITION,
    "LTX2TextConnectors": _CONDITION,
    "LTX2DurationHead": _CONDITION,
    "Ideogram4PromptEnhancerHead": _CONDITION,
    "ShapEParamsProjModel": _CONDITION,
    "UniDiffuserTextDecoder": "writes a text, by a GPT-2 of transformers",
    "PaellaVQModel": _DECODER,
    "VQModel": "an autoencoder",  # elsewhere in an older diffusers
    "LTX2Vocoder": _DECODER,
    "LTX2VocoderWithBWE": _DECODER,
    "MLPNeRSTFModel": _DECODER,
    "ShapERenderer": _DECODER,
    "LTXLatentUpsamplerModel": _DECODER,
    "LTX2LatentUpsamplerModel": _DECODER,
    "Kandinsky6SRLatentUpscalerBank": _DECODER,
    "IFWatermarker": "draws a watermark",
}


def reason(name: str) -> str | None:
    """Why a class is none to control; None if nobody has said so."""
    if ".models.autoencoders." in model_classes()[name]:
        return "an autoencoder"
    return REASONS.get(name)
