"""Option files with the keys and values of BasicSR's own and its forks', which people have; nothing of Relume's is in them."""

from __future__ import annotations

PAIRED = """
    type: PairedImageDataset
    dataroot_gt: datasets/{folder}/GTmod12
    dataroot_lq: datasets/{folder}/LRbicx{scale}
    io_backend:
      type: disk
"""


def paired(name: str, folder: str, scale: int) -> str:
    """An evaluation set as BasicSR's files have them."""
    return f"    name: {name}" + PAIRED.format(folder=folder, scale=scale)


END = """
logger:
  print_freq: 100
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

dist_params:
  backend: nccl
  port: 29500
"""

MSRRESNET_X4 = f"""
name: 001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb
model_type: SRModel
scale: 4
num_gpu: 1
manual_seed: 0

datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: datasets/DF2K/DIV2K_train_HR_sub
    dataroot_lq: datasets/DF2K/DIV2K_train_LR_bicubic_X4_sub
    meta_info_file: basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt
    filename_tmpl: '{{}}'
    io_backend:
      type: disk

    gt_size: 128
    use_hflip: true
    use_rot: true

    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 100
    prefetch_mode: ~

  val:
{paired("Set5", "Set5", 4)}
  val_2:
{paired("Set14", "Set14", 4)}
network_g:
  type: MSRResNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 16
  upscale: 4

path:
  pretrain_network_g: ~
  param_key_g: params
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]

  scheduler:
    type: CosineAnnealingRestartLR
    periods: [250000, 250000, 250000, 250000]
    restart_weights: [1, 1, 1, 1]
    eta_min: !!float 1e-7

  total_iter: 1000000
  warmup_iter: -1

  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

val:
  val_freq: !!float 5e3
  save_img: false

  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
      test_y_channel: false
      better: higher
    niqe:
      type: calculate_niqe
      crop_border: 4
      better: lower
{END}"""

EDSR_MX2 = f"""
name: 201_EDSR_Mx2_f64b16_DIV2K_300k_B16G1_wandb
model_type: SRModel
scale: 2
num_gpu: 1
manual_seed: 10

datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: datasets/DF2K/DIV2K_train_HR_sub
    dataroot_lq: datasets/DF2K/DIV2K_train_LR_bicubic_X2_sub
    meta_info_file: basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt
    filename_tmpl: '{{}}'
    io_backend:
      type: disk

    gt_size: 96
    use_hflip: true
    use_rot: true

    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 100
    prefetch_mode: ~

  val:
{paired("Set5", "Set5", 2)}
network_g:
  type: EDSR
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 16
  upscale: 2
  res_scale: 1
  img_range: 255.
  rgb_mean: [0.4488, 0.4371, 0.4040]

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]

  scheduler:
    type: MultiStepLR
    milestones: [200000]
    gamma: 0.5

  total_iter: 300000
  warmup_iter: -1

  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

val:
  val_freq: !!float 5e3
  save_img: false

  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 2
      test_y_channel: false
{END}"""

RRDBNET_PSNR_X4 = f"""
name: 051_RRDBNet_PSNR_x4_f64b23_DIV2K_1000k_B16G1_wandb
model_type: SRModel
scale: 4
num_gpu: 1
manual_seed: 0

datasets:
  train:
    name: DF2K
    type: PairedImageDataset
    dataroot_gt: datasets/DF2K/DF2K_train_HR_sub
    dataroot_lq: datasets/DF2K/DF2K_train_LR_bicubic_X4_sub
    filename_tmpl: '{{}}'
    io_backend:
      type: disk

    gt_size: 128
    use_hflip: true
    use_rot: true

    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 100
    prefetch_mode: ~

  val:
{paired("Set14", "Set14", 4)}
network_g:
  type: RRDBNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 23
  num_grow_ch: 32

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]

  scheduler:
    type: CosineAnnealingRestartLR
    periods: [250000, 250000, 250000, 250000]
    restart_weights: [1, 1, 1, 1]
    eta_min: !!float 1e-7

  total_iter: 1000000
  warmup_iter: -1

  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

val:
  val_freq: !!float 5e3
  save_img: false

  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
      test_y_channel: false
{END}"""

NAFNET_SIDD = f"""
name: NAFNet-SIDD-width32
model_type: ImageRestorationModel
scale: 1
num_gpu: 8
manual_seed: 10

datasets:
  train:
    name: SIDD
    type: PairedImageDataset
    dataroot_gt: ./datasets/SIDD/train/gt_crops.lmdb
    dataroot_lq: ./datasets/SIDD/train/input_crops.lmdb

    filename_tmpl: '{{}}'
    io_backend:
      type: lmdb

    gt_size: 256
    use_flip: false
    use_rot: false

    use_shuffle: true
    num_worker_per_gpu: 4
    batch_size_per_gpu: 4
    dataset_enlarge_ratio: 1
    prefetch_mode: ~

  val:
    name: SIDD_val
    type: PairedImageDataset
    dataroot_gt: ./datasets/SIDD/val/gt_crops.lmdb
    dataroot_lq: ./datasets/SIDD/val/input_crops.lmdb
    io_backend:
      type: lmdb

network_g:
  type: NAFNet
  width: 32
  enc_blk_nums: [2, 2, 4, 8]
  middle_blk_num: 12
  dec_blk_nums: [2, 2, 2, 2]

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  optim_g:
    type: AdamW
    lr: !!float 1e-3
    weight_decay: 0.
    betas: [0.9, 0.9]

  scheduler:
    type: TrueCosineAnnealingLR
    T_max: 200000
    eta_min: !!float 1e-7

  total_iter: 200000
  warmup_iter: -1

  pixel_opt:
    type: PSNRLoss
    loss_weight: 1
    reduction: mean

val:
  val_freq: !!float 2e4
  save_img: false
  use_image: false

  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 0
      test_y_channel: false
    ssim:
      type: calculate_ssim
      crop_border: 0
      test_y_channel: false
{END}"""

RESTORMER_NETWORK = """
network_g:
  type: Restormer
  inp_channels: 3
  out_channels: 3
  dim: 48
  num_blocks: [4,6,6,8]
  num_refinement_blocks: 4
  heads: [1,2,4,8]
  ffn_expansion_factor: 2.66
  bias: False
  LayerNorm_type: {norm}
  dual_pixel_task: False
"""

RESTORMER_TRAIN = """
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  total_iter: 300000
  warmup_iter: -1
  use_grad_clip: true

  scheduler:
    type: CosineAnnealingRestartCyclicLR
    periods: [92000, 208000]
    restart_weights: [1,1]
    eta_mins: [0.0003,0.000001]

  mixing_augs:
    mixup: {mixup}
    mixup_beta: 1.2
    use_identity: true

  optim_g:
    type: AdamW
    lr: !!float 3e-4
    weight_decay: !!float 1e-4
    betas: [0.9, 0.999]

  pixel_opt:
    type: L1Loss
    loss_weight: 1
    reduction: mean

val:
  window_size: 8
  val_freq: !!float 4e3
  save_img: false
  rgb2bgr: true
  use_image: {use_image}
  max_minibatch: 8

  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 0
      test_y_channel: {luma}
"""

PROGRESSIVE = """
    filename_tmpl: '{}'
    io_backend:
      type: disk

    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8

    mini_batch_sizes: [8,5,4,2,1,1]
    iters: [92000,64000,48000,36000,36000,24000]
    gt_size: 384
    gt_sizes: [128,160,192,256,320,384]

    dataset_enlarge_ratio: 1
    prefetch_mode: ~
"""

RESTORMER_DERAINING = f"""
name: Deraining_Restormer
model_type: ImageCleanModel
scale: 1
num_gpu: 8
manual_seed: 100

datasets:
  train:
    name: TrainSet
    type: Dataset_PairedImage
    dataroot_gt: ./Deraining/Datasets/train/Rain13K/target
    dataroot_lq: ./Deraining/Datasets/train/Rain13K/input
    geometric_augs: true
{PROGRESSIVE}
  val:
    name: ValSet
    type: Dataset_PairedImage
    dataroot_gt: ./Deraining/Datasets/test/Rain100L/target
    dataroot_lq: ./Deraining/Datasets/test/Rain100L/input
    io_backend:
      type: disk
{RESTORMER_NETWORK.format(norm="WithBias")}
{RESTORMER_TRAIN.format(mixup="false", use_image="true", luma="true")}
{END}"""

RESTORMER_DENOISING = f"""
name: GaussianColorDenoising_Restormer
model_type: ImageCleanModel
scale: 1
num_gpu: 8
manual_seed: 100

datasets:
  train:
    name: TrainSet
    type: Dataset_GaussianDenoising
    sigma_type: random
    sigma_range: [0,50]
    in_ch: 3
    dataroot_gt: ./Denoising/Datasets/train/DFWB
    dataroot_lq: none
    geometric_augs: true
{PROGRESSIVE}
  val:
    name: ValSet
    type: Dataset_GaussianDenoising
    sigma_test: 25
    in_ch: 3
    dataroot_gt: ./Denoising/Datasets/test/CBSD68
    dataroot_lq: none
    io_backend:
      type: disk
{RESTORMER_NETWORK.format(norm="BiasFree")}
{RESTORMER_TRAIN.format(mixup="true", use_image="false", luma="false")}
{END}"""

TEST_SETS = f"""
datasets:
  test_1:
{paired("Set5", "Set5", 4)}
  test_2:
{paired("Set14", "Set14", 4)}
  test_3:
    name: DIV2K100
    type: PairedImageDataset
    dataroot_gt: datasets/DIV2K/DIV2K_valid_HR
    dataroot_lq: datasets/DIV2K/DIV2K_valid_LR_bicubic/X4
    filename_tmpl: '{{}}x4'
    io_backend:
      type: disk
"""

TEST_METRICS = """
val:
  save_img: true
  suffix: ~

  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 4
      test_y_channel: false
      better: higher
    ssim:
      type: calculate_ssim
      crop_border: 4
      test_y_channel: false
      better: higher
"""

TEST_MSRRESNET_X4 = f"""
name: 001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb
model_type: SRModel
scale: 4
num_gpu: 1
manual_seed: 0
{TEST_SETS}
network_g:
  type: MSRResNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 16
  upscale: 4

path:
  pretrain_network_g: experiments/001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb/models/net_g_1000000.pth
  param_key_g: params
  strict_load_g: true
{TEST_METRICS}"""

TEST_MSRRESNET_X4_WITHOUT_TRUTH = """
name: 001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb
model_type: SRModel
scale: 4
num_gpu: 1
manual_seed: 0

datasets:
  test_1:
    name: Set5
    type: SingleImageDataset
    dataroot_lq: datasets/Set5/LRbicx4
    io_backend:
      type: disk
  test_2:
    name: Set14
    type: SingleImageDataset
    dataroot_lq: datasets/Set14/LRbicx4
    io_backend:
      type: disk

network_g:
  type: MSRResNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 16
  upscale: 4

path:
  pretrain_network_g: experiments/001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb/models/net_g_1000000.pth
  strict_load_g: true

val:
  save_img: true
  suffix: ~
"""

TEST_EDSR_LX4 = f"""
name: EDSR_Lx4_f256b32_DIV2K_official
model_type: SRModel
scale: 4
num_gpu: 1
manual_seed: 0
{TEST_SETS}
network_g:
  type: EDSR
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 256
  num_block: 32
  upscale: 4
  res_scale: 0.1
  img_range: 255.
  rgb_mean: [0.4488, 0.4371, 0.4040]

path:
  pretrain_network_g: experiments/pretrained_models/EDSR/EDSR_Lx4_f256b32_DIV2K_official-76ee1c8f.pth
  strict_load_g: true
{TEST_METRICS}"""
