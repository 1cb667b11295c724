"""Option files with the keys and values of DiffIR's own and of its HDR fork, which people have; nothing in them is ours."""

from __future__ import annotations

NETWORK = """
  n_encoder_res: 5
  inp_channels: 3
  out_channels: 3
  dim: 48
  num_blocks: [3,5,6,6]
  num_refinement_blocks: 4
  heads: [1,2,4,8]
  ffn_expansion_factor: 2
  bias: False
  LayerNorm_type: WithBias
"""

LOADER = """
    filename_tmpl: '{}'
    io_backend:
      type: disk
    num_worker_per_gpu: 12
    use_shuffle: true
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
"""

MIXING = """
  mixing_augs:
    mixup: false
    mixup_beta: 1.2
    use_identity: true

  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
"""

END = """
  val_freq: !!float 5e3
  save_img: False

  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 0
      test_y_channel: false

logger:
  print_freq: 1000
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

dist_params:
  backend: nccl
  port: 29500
"""


def deblurring(iters: str) -> str:
    """The progressive data of both stages."""
    return f"""
datasets:
  train:
    name: TrainSet
    type: DeblurPairedDataset
    dataroot_gt: motion_deblur/train_crops/target_crops
    dataroot_lq: motion_deblur/train_crops/input_crops
    geometric_augs: true
{LOADER}
    batch_size_per_gpu: 8
    mini_batch_sizes: [8,4,2,2,1,1]
    iters: {iters}
    gt_size: 512
    gt_sizes: [192, 256,320,384,464,512]

  val:
    name: ValSet
    type: DeblurPairedDataset
    dataroot_gt: motion_deblur/val/GoPro/target_crops
    dataroot_lq: motion_deblur/val/GoPro/input_crops
    io_backend:
      type: disk
"""


STAGE_1 = f"""
name: train_DiffIRS1
model_type: DiffIRS1Model
scale: 1
num_gpu: auto
manual_seed: 0
{deblurring("[92000,80000,38000,33000,33000,24000]")}
network_g:
  type: DiffIRS1
{NETWORK}
path:
  pretrain_network_g: ~
  param_key_g: params_ema
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.999

  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.999]

  scheduler:
    type: CosineAnnealingRestartCyclicLR
    periods: [92000, 208000]
    restart_weights: [1,1]
    eta_mins: [0.000285,0.000001]

  total_iter: 300000
  warmup_iter: -1
{MIXING}
val:
{END}"""

STAGE_2 = f"""
name: train_DiffIRS2
model_type: DiffIRS2Model
scale: 1
num_gpu: auto
manual_seed: 0
{deblurring("[150000,60000,50000,60000,40000,40000]")}
network_g:
  type: DiffIRS2
{NETWORK}
  n_denoise_res: 1
  linear_start: 0.1
  linear_end: 0.99
  timesteps: 4

network_S1:
  type: DiffIRS1
{NETWORK}
path:
  pretrain_network_g: experiments/train_DiffIRS1/models/net_g_latest.pth
  pretrain_network_S1: experiments/train_DiffIRS1/models/net_g_latest.pth
  param_key_g: params_ema
  strict_load_g: False
  resume_state: ~
  ignore_resume_networks: network_S1

train:
  ema_decay: 0.999

  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]

  scheduler:
    type: MultiStepLR
    milestones: [300000]
    gamma: 0.5

  encoder_iter: 100000
  total_iter: 400000
  lr_encoder: !!float 2e-4
  lr_sr: !!float 2e-4
  gamma_encoder: 0.1
  gamma_sr: 0.5
  lr_decay_encoder: 60000
  lr_decay_sr: 80000
  warmup_iter: -1
{MIXING}
  kd_opt:
    type: KDLoss
    loss_weight: 1
    temperature: 0.15

val:
  window_size: 8
{END}"""


def hdr(name: str, model: str, dataset: str, recover: bool) -> str:
    """The HDR fork's files: a fixed batch and patch, growing cosine cycles, features of VGG19."""

    def folders(phase: str) -> str:
        kinds = {"gt": "hdr", **({"gt_recover": "hdr_recover"} if recover else {}), "lq": "jpg", "dgain": "dgain_info"}
        return "\n".join(f"    dataroot_{k}: AIM_ITM_TRAIN/{phase}_hdr/{v}" for k, v in kinds.items())

    return f"""
name: {name}
model_type: {model}
scale: 1
num_gpu: auto
manual_seed: 0

datasets:
  train:
    name: TrainSet
    type: {dataset}
{folders("train")}
    geometric_augs: true
{LOADER}
    batch_size_per_gpu: 4
    gt_size: 256

  val:
    name: ValSet
    type: {dataset}
{folders("val")}
    io_backend:
      type: disk

network_g:
  type: DiffIRS1
{NETWORK}
path:
  pretrain_network_g: ~
  param_key_g: params_ema
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.999

  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.999]

  scheduler:
    type: CosineAnnealingWarmupRestarts
    first_cycle_steps: 50000
    cycle_mult: 1.5
    max_lr: !!float 2e-4
    min_lr: !!float 1e-7
    warmup_steps: 2000
    gamma: 0.8

  total_iter: 300000
  warmup_iter: 2000
{MIXING}
  perceptual_opt:
    type: PerceptualLoss
    layer_weights:
      'conv1_2': 0.1
      'conv2_2': 0.1
      'conv3_4': 1
      'conv4_4': 1
      'conv5_4': 1
    vgg_type: vgg19
    use_input_norm: true
    perceptual_weight: !!float 0.3
    style_weight: 0
    range_norm: false
    criterion: l1

val:
{END}"""


HDR = hdr("train_DiffIRS1_hdr", "DiffIRS1Model", "LDR_HDR_PairedDataset", recover=False)
RECOVER = hdr("train_DiffIRS1_recover_hdr", "DiffIRS1HDRModel", "LDR_HDR_HDR_RECOVER_PairedDataset", recover=True)
