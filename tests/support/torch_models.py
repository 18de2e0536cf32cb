"""Runs timm's, torchvision's and transformers' models, stage by stage."""

import torch


def fill(model, seed=0):
  """Draws all of a model's parameters and statistics, none left as it starts.

  Returns:
    the model, in evaluation mode.
  """
  key = torch.Generator().manual_seed(seed)
  for name, tensor in model.state_dict().items():
    noise = lambda t: torch.randn(t.shape, generator=key)
    if name.endswith('running_var'):
      tensor.copy_(0.5 + torch.rand(tensor.shape, generator=key))
    elif tensor.ndim == 1 and not name.endswith(('bias', 'running_mean')):
      # Below 1, or the sums over many residual branches would grow, and the
      # rounding of float32 with them.
      tensor.copy_(0.6 + 0.2 * noise(tensor))
    elif tensor.ndim in (1, 3):  # biases; tokens and their positions
      tensor.copy_(0.2 * noise(tensor))
    elif tensor.ndim:
      fan_in = tensor[0].numel()
      tensor.copy_(noise(tensor) / fan_in**0.5)
  return model.eval()


def stages(model, images):
  """What leaves each stage of a model.

  Args:
    model: a ViT of timm or transformers, or a ResNet of timm or torchvision.
    images: `[b, H, W, 3]` float32.

  Returns:
    NumPy arrays by the names that our models' intermediates have, and
    'features': the class token, or the average plus the maximum over pixels.
  """
  seen = {}

  def keep(name):
    def hook(module, arguments, output):
      output = output[0] if isinstance(output, tuple) else output
      seen[name] = output.numpy()

    return hook

  def keep_input(module, arguments, keywords):
    tokens = arguments[0] if arguments else keywords['hidden_states']
    seen['embed'] = tokens.numpy()

  resnet = hasattr(model, 'layer1')
  if resnet:
    model.maxpool.register_forward_hook(keep('stem'))
    for i in range(1, 5):
      for j, block in enumerate(getattr(model, f'layer{i}')):
        block.register_forward_hook(keep(f'layer{i}_{j}'))
  else:
    blocks, norm = _blocks_and_norm(model)
    blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True)
    for i, block in enumerate(blocks):
      block.register_forward_hook(keep(f'block{i}'))
    norm.register_forward_hook(keep('norm'))
  with torch.no_grad():
    model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
  if not resnet:
    return seen | {'features': seen['norm'][:, 0]}
  maps = {name: m.transpose(0, 2, 3, 1) for name, m in seen.items()}
  last = list(maps.values())[-1]
  return maps | {'features': last.mean((1, 2)) + last.max((1, 2))}


def _blocks_and_norm(model):
  if hasattr(model, 'blocks'):
    return model.blocks, model.norm
  base = model.base_model
  blocks = base.encoder.layer if hasattr(base, 'encoder') else base.layers
  return blocks, base.layernorm
