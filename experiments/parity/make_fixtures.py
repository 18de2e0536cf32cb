"""Writes tests/fixtures/parity_*: small random models of others, run by them.

Each case is a file of weights as its library or authors lay it out, and in
parity_stages.npz what leaves each stage of the library's model on the images
there. The tests load the files and compare, without any of the libraries. Of
the real DINOv2, whose weights are too large to keep, there are the features
alone.
"""

import argparse
import pathlib
import tempfile

import numpy as np
import safetensors.torch
import timm
import torch
import transformers
from timm.layers import SwiGLUPacked
from timm.models import deit, resnet, vision_transformer

from tests.models import test_parity as parity
from tests.support import torch_models

FOLDER = pathlib.Path(__file__).parents[2] / 'tests' / 'fixtures'
WIDTH, HEADS, DEPTH, PATCH, SIDE = 16, 2, 2, 4, 16


def timm_vit(cls=vision_transformer.VisionTransformer, **kwargs):
  """A ViT of timm, drawn."""
  sizes = {'img_size': SIDE, 'patch_size': PATCH, 'embed_dim': WIDTH}
  sizes |= {'depth': DEPTH, 'num_heads': HEADS, 'num_classes': 3}
  return torch_models.fill(cls(**sizes | kwargs))


def hf_vit(name, **kwargs):
  """A ViT of transformers, drawn, and its arrays as it writes them."""
  config = getattr(transformers, f'{name.partition("For")[0]}Config')(
    hidden_size=WIDTH,
    num_hidden_layers=DEPTH,
    num_attention_heads=HEADS,
    intermediate_size=4 * WIDTH,
    image_size=SIDE,
    patch_size=PATCH,
    **kwargs,
  )
  kind = name if 'For' in name else f'{name}Model'
  model = torch_models.fill(getattr(transformers, kind)(config))
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    return model, safetensors.torch.load_file(f'{folder}/model.safetensors')


def case_timm_vit():
  """Of timm itself, with a classifier."""
  model = timm_vit()
  return model, 'safetensors', model.state_dict()


def case_deit():
  """DeiT's checkpoint; its network has timm's names."""
  model = timm_vit(deit.VisionTransformerDistilled)
  return model, 'pth', {'model': model.state_dict()}


def case_dino():
  """DINO's whole training checkpoint; its network has timm's names."""
  model = timm_vit(num_classes=0)
  state = {f'module.backbone.{k}': v for k, v in model.state_dict().items()}
  state['module.head.mlp.0.weight'] = torch.ones(2, WIDTH)
  student = {'module.backbone.cls_token': torch.zeros(1, 1, WIDTH)}
  settings = argparse.Namespace(arch='vit_small', lr=5e-4)
  saved = {'student': student, 'teacher': state, 'args': settings, 'epoch': 100}
  return model, 'pth', saved


def case_timm_giant():
  """DINOv2 with registers and SwiGLU, positions for patches alone."""
  model = timm_vit(
    init_values=1.0,
    reg_tokens=3,
    no_embed_class=True,
    mlp_layer=SwiGLUPacked,
    mlp_ratio=6,
    act_layer=torch.nn.SiLU,
    num_classes=0,
  )
  return model, 'safetensors', model.state_dict()


def case_dinov2():
  """DINOv2's own names, which timm maps to its own."""
  model = case_timm_giant()[0]
  state = dict(model.state_dict())
  state['register_tokens'] = state.pop('reg_token')
  first = torch.full((1, 1, WIDTH), 0.25)
  state['cls_token'] = state['cls_token'] - first
  state['pos_embed'] = torch.cat([first, state['pos_embed']], 1)
  state['mask_token'] = torch.ones(1, WIDTH)
  for old, new in (('mlp.fc1', 'mlp.w12'), ('mlp.fc2', 'mlp.w3')):
    state = {k.replace(old, new): v for k, v in state.items()}
  mapped = vision_transformer.checkpoint_filter_fn(dict(state), model)
  model.load_state_dict(mapped)
  return model, 'pth', state


def case_hf_vit():
  """With a classifier."""
  model, state = hf_vit('ViTForImageClassification')
  return model, 'bin', state


def case_hf_deit():
  """With both classifiers."""
  model, state = hf_vit('DeiTForImageClassificationWithTeacher')
  return model, 'safetensors', state


def case_hf_dinov2():
  """With registers."""
  model, state = hf_vit('Dinov2WithRegisters', num_register_tokens=3)
  return model, 'safetensors', state


def case_hf_giant():
  """With SwiGLU."""
  model, state = hf_vit('Dinov2', use_swiglu_ffn=True)
  return model, 'safetensors', state


def case_resnet():
  """Of bottlenecks, with a classifier."""
  model = resnet.ResNet(
    resnet.Bottleneck, (1, 2, 1, 1), channels=(4, 4, 4, 4), num_classes=3
  )
  return torch_models.fill(model), 'safetensors', model.state_dict()


def _flax(attention, norm2, mlp, pos_embed, prefix=''):
  """Arrays of a Flax ViT as they are laid out in its .npz, drawn."""
  rng = np.random.default_rng(1)
  draw = lambda *shape, scale=0.2: rng.normal(size=shape, scale=scale)
  arrays = {
    'embedding/kernel': draw(PATCH, PATCH, 3, WIDTH),
    'embedding/bias': draw(WIDTH),
    'cls': draw(1, 1, WIDTH),
    pos_embed: draw(1, 1 + (SIDE // PATCH) ** 2, WIDTH),
    'Transformer/encoder_norm/scale': 1 + draw(WIDTH),
    'Transformer/encoder_norm/bias': draw(WIDTH),
  }
  for i in range(DEPTH):
    block = f'Transformer/encoderblock_{i}'
    heads = f'{block}/MultiHeadDotProductAttention_{attention}'
    for norm in (0, norm2):
      arrays[f'{block}/LayerNorm_{norm}/scale'] = 1 + draw(WIDTH)
      arrays[f'{block}/LayerNorm_{norm}/bias'] = draw(WIDTH)
    for x in ('query', 'key', 'value'):
      arrays[f'{heads}/{x}/kernel'] = draw(WIDTH, HEADS, WIDTH // HEADS)
      arrays[f'{heads}/{x}/bias'] = draw(HEADS, WIDTH // HEADS)
    arrays[f'{heads}/out/kernel'] = draw(HEADS, WIDTH // HEADS, WIDTH)
    arrays[f'{heads}/out/bias'] = draw(WIDTH)
    for j, (rows, columns) in enumerate([(1, 4), (4, 1)]):
      dense = f'{block}/MlpBlock_{mlp}/Dense_{j}'
      arrays[f'{dense}/kernel'] = draw(rows * WIDTH, columns * WIDTH)
      arrays[f'{dense}/bias'] = draw(columns * WIDTH)
  return {prefix + k: v.astype(np.float32) for k, v in arrays.items()}


def _read_by_timm(arrays):
  model = timm_vit(num_classes=0)
  with tempfile.TemporaryDirectory() as folder:
    np.savez(f'{folder}/a.npz', **arrays)
    model.load_pretrained(f'{folder}/a.npz')
  return model, 'npz', arrays


def case_augreg():
  """AugReg's .npz, with a classifier that has no place in a backbone."""
  arrays = _flax(1, 2, 3, 'Transformer/posembed_input/pos_embedding')
  model, kind, arrays = _read_by_timm(arrays)
  return model, kind, arrays | {'head/kernel': np.ones((WIDTH, 3), 'f')}


def case_big_vision():
  """big_vision's .npz."""
  return _read_by_timm(_flax(0, 1, 0, 'pos_embedding', 'params/'))


def _write(path, saved):
  if path.suffix == '.npz':
    np.savez(path, **saved)
  elif path.suffix == '.safetensors':
    packed = {k: v.contiguous() for k, v in saved.items()}
    safetensors.torch.save_file(packed, path, {'format': 'pt'})
  else:
    torch.save(saved, path)
  path.chmod(0o644)


def main():
  """Writes all cases."""
  rng = np.random.default_rng(0)
  recorded = {
    'images': rng.normal(size=(1, SIDE, SIDE, 3)).astype(np.float32),
    'images_48': rng.normal(size=(1, 48, 48, 3)).astype(np.float32),
  }
  for key, make in list(globals().items()):
    if not key.startswith('case_'):
      continue
    name = key.removeprefix('case_')
    model, suffix, saved = make()
    _write(FOLDER / f'parity_{name}.{suffix}', saved)
    images = recorded['images_48' if name == 'resnet' else 'images']
    for stage, array in torch_models.stages(model, images).items():
      recorded[f'{name}/{stage}'] = array
  np.savez_compressed(FOLDER / 'parity_stages.npz', **recorded)
  tokens = torch_models.stages(parity.real_dinov2(), parity.emoji())['norm']
  np.save(FOLDER / 'parity_dinov2_vits14.npy', parity.class_and_mean(tokens))
  print(f'timm {timm.__version__}, transformers {transformers.__version__}')


if __name__ == '__main__':
  main()
