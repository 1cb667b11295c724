"""What the options of the zoo's architectures mean, by name: they mean the same wherever they occur."""

from __future__ import annotations

_NAMES: dict[str, str] = {
    "channels of the input image.": (
        "dd_in img_channel in_c in_ch in_channel in_channels in_chans in_nc inp_channels n_colors num_in_ch "
        "num_input_channels"
    ),
    "channels of the output image.": (
        "num_out_ch num_output_channels out_c out_ch out_channels out_chans out_dim out_nc"
    ),
    "channels inside the network.": (
        "ch dim dim_embd embed_dim embed_dims embedding_dim feature_channels init_dim mid_dim n_embed n_feat "
        "n_feats nc nf num_channels num_feat num_feats patch_dim upsample_dim width z_channels"
    ),
    "factor of enlargement.": "scale scale_factor up_scale upscale upscale_factor upscaling_factor",
    "number of blocks, of each group or level where it is a list.": (
        "attn_depths block_num config dec_blk_nums dec_layers depth depth_per_group depths enc_blk_nums "
        "ITL_blocks mid_attn_depth middle_blk_num n_block n_blocks n_MRB n_resblocks nb num_block num_blocks "
        "num_cab num_refinement_blocks num_res_blocks res_num SAL_blocks UFONE_blocks"
    ),
    "number of groups of blocks, or of layers.": (
        "n_layers n_resgroups n_RRG num_groups num_layers num_mlp num_modules stage"
    ),
    "attention heads, of each group or level where it is a list.": (
        "heads n_head num_head num_heads num_heads_stripe num_heads_window self_attn_heads"
    ),
    "channels of an attention head.": "head_size self_attn_dim_head",
    "side of the attention windows.": "win_size window_size",
    "sides of the windows that attention is split into.": "split_size split_size_0 split_size_1",
    "hidden channels of the feed-forward part, as a multiple.": (
        "expansion_factor expansion_msg expansion_ratio ffn_expansion_factor ffn_expansion_ratio ffn_scale mlp_ratio"
    ),
    "side of the training patches; it only sizes what is computed beforehand.": (
        "gt_resolution image_size img_size input_image_size input_resolution input_size out_size resolution"
    ),
    "span of the values that the network works with; images stay in [0, 1].": "img_range rgb_range",
    "how features become the enlarged image.": "resize_mode upsample_mode upsampler upsampler_type",
    "last layer of a group of blocks: 1conv, 3conv or identity.": "conv_type resi_connection",
    "biases of the layers for query, key and value.": "qkv_bias",
    "factor of query times key; from the head's width when omitted.": "qk_scale",
    "biases of the convolutions.": "bias",
    "dropout.": "attn_drop_rate drop_path drop_rate dropout dropout_rate",
    "largest probability that a block is skipped in training (stochastic depth).": "drop_path_rate",
    "absolute position embedding.": "ape",
    "normalisation after the embedding of patches.": "patch_norm",
    "side of the patches that become tokens.": "patch_size",
    "recompute activations instead of keeping them.": "fairscale_checkpoint offload_to_cpu use_checkpoint use_chk",
    "side of the convolution kernels.": "convffn_kernel_size global_kernel_size kernel_size sparse_kernels",
    "dilation of the sparse kernels.": "sparse_dilations",
    "divisor of the channels inside channel attention.": (
        "aim_reduction_ratio compress_ratio reduction squeeze_factor"
    ),
    "weight of the convolution beside attention.": "conv_scale",
    "overlap of the windows of cross-attention, as a share.": "overlap_ratio",
    "factor of the residuals.": "res_scale skip_connect_scale",
    "mean colour that is subtracted.": "rgb_mean",
    "activation.": "act_mode act_type degradation_degree_actv",
    "normalisation.": "do_normalize last_norm layer_norm LayerNorm_type no_norm norm norm_groups norm_type",
    "size of the token dictionary.": "category_size codebook_params codebook_size num_queries num_tokens",
    "channels that attention is reduced to.": "c_ratio reducted_dim",
    "growth of the channels from level to level.": (
        "ch_mult chan_factor channel_multiplier down_dim_mults gc num_grow_ch up_dim_mults"
    ),
    "share of the channels that the large kernel or the convolution sees.": "conv_ratio split_ratio",
    "number of experts, and how many of them are asked.": "num_experts topk",
    "how many times a block repeats itself.": "recursive",
    "how the rank of experts grows.": "lr_space",
    "whether channels are shuffled.": "use_shuffle",
    "upsampling by learned sampling points.": "dysample",
    "unshuffle the input first, by this factor or for small scales.": "start_unshuffle unshuffle_mod",
    "a lighter variant.": "lightweight",
    "kind of block.": (
        "anchor_proj_type ccm_type de_net_type decoder_name downsample_mode encoder_name group_block_pattern "
        "init_method lk_type mode out_proj_type qkv_proj_type task token_mlp token_projection"
    ),
    "whether this part of the network is there.": (
        "anchor_one_stage cross_modulator different_w double_z enable_mid euclidean_dist flash_attn full_attn "
        "input_is_latent local_connection LQ_stage mlp modulator no_pos pe pos_every pro sft_half shift_flag "
        "stripe_shift unconditional use_ea use_max_kernel use_quantize use_residual weight_softmax with_idt"
    ),
    "what is not trained.": "fix_codebook fix_decoder fix_encoder fix_modules",
    "size and grouping of the attention stripes.": (
        "anchor_window_down_factor pretrained_stripe_size pretrained_window_size stripe_groups stripe_size"
    ),
    "channels of the U-nets inside.": "scale_orsnetfeats scale_unetfeats",
    "a further setting of the original.": (
        "attn_resolutions channels connect_list decoder_load_path downscales latent_size narrow "
        "num_conv_kernels num_degradation num_scales num_style_feat resnet_block_groups style_network"
    ),
}
"""Descriptions, and the names of the options that they are of."""

WORDS: dict[str, str] = {name: text for text, names in _NAMES.items() for name in names.split()}
