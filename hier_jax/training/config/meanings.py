"""What each key of the config means, in a sentence for its reader.

Options of metric losses are described where they are defined, in the docstrings
of `losses`; the documentation site puts both into one table.
"""

from typing import NamedTuple

__all__ = ['MEANINGS', 'Meaning']


class Meaning(NamedTuple):
  """What a key means.

  Attributes:
    text: a phrase or more, without the full stop.
    symbol: the name in HIER's paper or program, '' where it has none.
  """

  text: str
  symbol: str = ''


_RUN = {
  'seed': Meaning(
    'seed of everything random: first weights, batches, views and triplets'
  ),
  'pretrained': Meaning(
    "weights that the backbone begins with: None for random ones, 'hub' for"
    " those published under the backbone's name, else a file or another name"
  ),
  'epochs': Meaning('length of the run'),
  'log_every': Meaning('steps between two lines of metrics.jsonl'),
  'parallel': Meaning(
    "what maps the step over devices; both give the same bits, see JAX's own"
    ' documentation of the two functions'
  ),
  'tensorboard': Meaning(
    'whether WORKDIR/tensorboard holds the logs as well (extra tensorboard)'
  ),
  'explore': Meaning(
    'whether the run ends by writing the page of `hier-jax explore`'
  ),
  'nonfinite': Meaning(
    "what happens at a loss or gradient that is not finite: 'stop' ends the"
    " run, 'skip' leaves out that step's update"
  ),
  'checkpoint.every_epochs': Meaning('epochs between two checkpoints'),
  'checkpoint.keep': Meaning(
    'number of latest checkpoints that are kept, besides the one that validates'
    ' best'
  ),
}
_MODEL = {
  'model.backbone': Meaning(
    'name of the backbone, as timm has it, or one of this package: see'
    ' "Pretrained backbones"'
  ),
  'model.image_size': Meaning('side of the square views in pixels'),
  'model.embedding_dim': Meaning('size of the embeddings', 'D'),
  'model.c': Meaning(
    'curvature: above 0 the ball of radius 1/sqrt(c), 0 Euclidean space, None'
    ' the unit sphere with cosine distance',
    'c',
  ),
  'model.clip_radius': Meaning(
    'longest tangent vector of the head and of the hierarchical proxies; None'
    ' for no clip',
    'r',
  ),
  'model.last_norm': Meaning(
    'whether the head begins with a LayerNorm without scale and bias'
  ),
  'model.radial_scale': Meaning(
    'first length of the tangent vectors where that is learned, which lets'
    ' embeddings have different radii; None for lengths as the paper has them'
  ),
  'model.dtype': Meaning(
    'type that the backbone computes in; parameters, head, losses and'
    ' evaluation are float32'
  ),
  'model.mean': Meaning(
    "mean of the pixels, one a color in 0..1; None for the backbone's own"
  ),
  'model.std': Meaning(
    "standard deviation of the pixels, one a color; None for the backbone's own"
  ),
  'model.pool': Meaning(
    "what the features are: 'token', 'mean' or 'token_mean' of a ViT, 'avg',"
    " 'max', 'avg_max' (their sum) or 'flatten' (the whole map, for aligned"
    " images) of a ResNet; None for the backbone's own"
  ),
  'model.deit_token': Meaning(
    "features of a distilled ViT: 'cls' for the class token, 'mean' of class"
    " and distillation token, 'official' for the former in training and the"
    " latter in evaluation; None for 'cls'"
  ),
  'model.drop_path': Meaning(
    'rate at which the last block of a ViT leaves out its branches (stochastic'
    ' depth), falling to 0 in the first; None for 0'
  ),
  'model.frozen_stats': Meaning(
    "whether a ResNet's BatchNorm keeps its running statistics, as the paper"
    " does; None for the backbone's own",
    'bn_freeze',
  ),
  'model.remat': Meaning(
    'whether the backward pass computes the blocks anew, which takes a third'
    ' more time and far less memory; None for no'
  ),
  'model.scan_blocks': Meaning(
    "whether a ViT's blocks are one loop on the device, a shorter program with"
    ' the same parameters; None for no'
  ),
}
_LOSS = {
  'loss.metric': Meaning('the metric loss, see "Losses"'),
  'loss.metric_weight': Meaning(
    'weight of the metric loss', 'lambda<sub>metric</sub>'
  ),
  'loss.second': Meaning(
    'a second metric loss, without class proxies, that is added to the first;'
    ' None for none'
  ),
  'loss.second_weight': Meaning(
    'weight of the second beside the first; 0 leaves it out'
  ),
  'loss.hier_weight': Meaning('weight of HIER; 0 leaves it out', 'lambda'),
  'loss.num_proxies': Meaning('number of hierarchical proxies', 'P'),
  'loss.hier.temperature': Meaning('temperature of the LCA picks', 'tau'),
  'loss.hier.margin': Meaning('margin of the hinges', 'delta'),
  'loss.hier.k': Meaning(
    'nearest neighbors of a node, itself included, among which reciprocal ones'
    ' are its positives',
    'K',
  ),
  'loss.hier.triplets_per_anchor': Meaning(
    'triplets that each anchor draws', 't'
  ),
  'loss.hier.proxy_anchors': Meaning(
    'proxies that are drawn as anchors a step, which makes the cost linear in'
    ' their number; None for all of up to 512, and 256 of more'
  ),
  'loss.hier.estimator': Meaning(
    "how a proxy is picked: 'gumbel' as the authors do, 'gumbel_rao' with less"
    " variance in the gradient, 'softmax' for a weighted mean, 'argmax' without"
    ' noise'
  ),
  'loss.hier.shared_noise': Meaning(
    'whether both picks of a triplet see the same noise'
  ),
  'loss.hier.self_negatives': Meaning(
    "whether an anchor may be its own negative, as in the authors' program"
  ),
  'loss.hier.exclude_self_lca': Meaning(
    'whether a proxy may not be picked as its own ancestor'
  ),
  'loss.hier.normalize_by': Meaning(
    "what the loss is divided by: 'all' triplets, or the 'valid' ones, whose"
    ' two picks differ'
  ),
  'loss.shard_classes': Meaning(
    'whether each device holds the proxies of its share of the classes alone,'
    " where there are many; it needs parallel='shard_map'"
  ),
  'loss.memory.size': Meaning(
    'rows of past batches that the metric loss compares with (XBM); 0 for none'
  ),
  'loss.memory.start_step': Meaning('step from which the memory is used'),
  'loss.*.hyperbolic': Meaning(
    'whether the loss measures with model.c; else by cosine'
  ),
  'loss.*.centers': Meaning('centers of a class'),
}
_OPTIM = {
  'optim.lr': Meaning(
    'learning rate. A group of parameters has lr * batch_size / 180 * its scale'
    ' * schedule',
    'lr',
  ),
  'optim.scales.backbone': Meaning('scale of the backbone'),
  'optim.scales.head': Meaning('scale of the embedding head', 'fc_lr_scale'),
  'optim.scales.hierarchical_proxies': Meaning(
    'scale of the hierarchical proxies'
  ),
  'optim.scales.class_proxies': Meaning(
    'scale of the proxies or centers of the metric loss'
  ),
  'optim.schedule': Meaning(
    "course of the rate: 'constant'; 'step' multiplies it by step_factor every"
    " step_every epochs; 'cosine' falls to a tenth; 'one_cycle' rises and falls"
  ),
  'optim.step_every': Meaning("epochs between two steps of 'step'"),
  'optim.step_factor': Meaning("factor of a step of 'step'"),
  'optim.warmup_epochs': Meaning(
    'first epochs, in which the backbone is not trained'
  ),
  'optim.freeze': Meaning(
    'regular expressions; parameters whose path one of them finds are never'
    ' trained'
  ),
  'optim.weight_decay': Meaning("AdamW's decay, of all parameters alike"),
  'optim.b1': Meaning("AdamW's decay of the mean gradient"),
  'optim.b2': Meaning("AdamW's decay of the mean squared gradient"),
  'optim.adam_eps': Meaning(
    "AdamW's epsilon; the paper's 1e-4 is larger than most gradients of the"
    ' proxies, so that 1e-8 is another recipe'
  ),
  'optim.grad_scale': Meaning(
    'factor of the gradient of backbone and head before it is clipped; the'
    " authors' program on n devices has 1/n"
  ),
  'optim.clip_value': Meaning(
    'bound of each element of the gradient; None for none', 'clip_grad'
  ),
  'optim.clip_norm': Meaning(
    "bound of the whole gradient's norm; None for none"
  ),
  'optim.ema_decay': Meaning(
    'decay of an exponential moving average of the parameters, which is then'
    ' what is evaluated; None for none'
  ),
}
_DATA = {
  'data.name': Meaning('data set, as `hier-jax data prepare` calls it'),
  'data.data_dir': Meaning(
    'folder of prepared data sets; None for TFDS_DATA_DIR, else'
    ' ~/tensorflow_datasets'
  ),
  'data.batch_size': Meaning('images of a batch, over all devices', 'B'),
  'data.micro_batch': Meaning(
    'images that a device embeds at a time, to save memory; None for all. Loss'
    ' and gradients are unchanged'
  ),
  'data.images_per_class': Meaning(
    'images of each class in a batch; 0 for shuffled images', 'IPC'
  ),
  'data.sampler': Meaning(
    "how classes meet in a batch: 'class' at random without repetition,"
    " 'hierarchical' from a few groups of a level, 'official' as the authors'"
    ' program'
  ),
  'data.level': Meaning(
    "level of the taxonomy for 'hierarchical'; None for the coarsest"
  ),
  'data.groups': Meaning("groups of that level in a batch of 'hierarchical'"),
  'data.num_threads': Meaning('threads that decode images'),
  'data.short_side': Meaning(
    'larger images are shrunk to this short side before training views are cut;'
    ' None for not'
  ),
  'data.cache': Meaning(
    "where decoded images are kept: 'off', 'auto' on the disk if they fit, or a"
    ' folder'
  ),
  'data.max_megapixels': Meaning('larger images are refused'),
  'data.device_views': Meaning(
    'whether crops are resized and mirrored on the devices; needs short_side'
  ),
  'data.train_view.scale': Meaning(
    'share of the image that a random crop keeps, lowest and highest; None for'
    ' no crop'
  ),
  'data.train_view.ratio': Meaning(
    'width over height of a random crop, lowest and highest'
  ),
  'data.train_view.flip': Meaning('probability of a mirrored view'),
  'data.train_view.affine.degrees': Meaning('largest rotation'),
  'data.train_view.affine.log_scale': Meaning(
    'largest logarithm of a magnification'
  ),
  'data.train_view.affine.log_aspect': Meaning(
    'largest logarithm of a change of width over height'
  ),
  'data.train_view.affine.translate': Meaning(
    "largest shift, as a share of the image's side"
  ),
  'data.train_view.grayscale': Meaning('probability of a view without color'),
  'data.train_view.channel_shuffle': Meaning(
    'probability that the colors change places'
  ),
  'data.train_view.brightness': Meaning(
    'largest change of each color, as a share of its difference from the ground'
  ),
  'data.eval_resize': Meaning(
    'short side of an image from whose center the evaluation view is cut; None'
    ' for image_size / eval_crop'
  ),
  'data.eval_crop': Meaning(
    'side of the evaluation view over the short side of the resized image'
  ),
}
_EVAL = {
  'eval.every_epochs': Meaning('epochs between two evaluations'),
  'eval.batch_size': Meaning(
    'images that are embedded at a time; None for about 500'
  ),
  'eval.recall_at': Meaning('values of K in Recall@K'),
  'eval.pixels': Meaning('whether raw pixels are evaluated too, as a baseline'),
  'eval.hold_out': Meaning(
    'one in this many training classes is held out for validation, unless the'
    " data set has a split 'val'; None for no validation. With validation the"
    ' test split is evaluated at the end alone'
  ),
  'eval.select': Meaning(
    "metric that chooses the best state: 'map@r', or 'recall@K' of a K of"
    ' recall_at'
  ),
  'eval.patience': Meaning(
    'evaluations without a better one after which the run ends; None for never'
  ),
}
# Dotted key -> meaning; `loss.*.KEY` stands for that key of every loss.
MEANINGS = {**_RUN, **_MODEL, **_LOSS, **_OPTIM, **_DATA, **_EVAL}
