"""All keys of a config, each with its unit or reason. The values are the paper's for CelebA, 64x64.

The config of a data set overrides the keys that differ. The allowed values are checked in
dbae_jax/configuration/sections.py.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns the config with all keys."""
    c = ConfigDict()
    c.seed = 0  # seed of all random draws: weights, data order, times, noise
    _data(c)
    _model(c)
    _bridge(c)
    _optim(c)
    _train(c)
    _distill(c)
    _checkpoint(c)
    _prior(c)
    _sample(c)
    _eval(c)
    return c


def _data(c: ConfigDict) -> None:
    c.data = ConfigDict()
    c.data.name = "celeba"  # data set; docs/reference/data_sets.md lists them
    c.data.data_dir = "data"  # folder that dbae_jax.data.prepare wrote, or its copy in a bucket
    c.data.lmdb = ""  # LMDB of DiffAE to read instead of prepared data; "": none
    # Training images: a TFDS split expression, such as "train[10000:]" or "train+validation".
    c.data.train_split = "train"
    c.data.test_split = "test"  # test images: a TFDS split expression
    # How images are cropped; resizing is antialiased. "center": the central square. "d2c": the
    # faces of CelebA. "zoom": the image is resized to 1.1 times the size, then its center is cut
    # out. "short": the short side is resized to the size, then the center is cut out.
    c.data.crop = "center"
    # Colour under transparent parts of images: a name such as "white", or "#rrggbb".
    c.data.background = "white"
    c.data.image_size = 64  # height and width in pixels; a power of two, 16 or more
    c.data.channels = 3  # color channels; 1 for gray images
    c.data.flip = True  # mirror training images at random; wrong for digits and text
    # The order of the images does not depend on num_threads, num_workers or prefetch_batches.
    c.data.num_threads = 16  # threads that decode images, in each process
    c.data.num_workers = 0  # extra processes that decode images; 0: threads of the training process
    c.data.prefetch_batches = 4  # batches in host memory ahead of the training step


def _model(c: ConfigDict) -> None:
    c.model = ConfigDict()
    c.model.latent_dim = 512  # D, the latent dimension: the width of z
    # True: the encoder gives the mean and the standard deviation of a Gaussian z (the paper's
    # "DBAE"). False: it gives z itself ("DBAE-d").
    c.model.stochastic = False
    # Number format of the computations. "bfloat16" is the other choice. Norms, softmax and loss
    # stay in float32.
    c.model.dtype = "float32"
    c.model.param_dtype = "float32"  # number format of the weights; float32 is the only choice
    # "highest" gives full float32 precision in matrix products on TPUs and GPUs. "high" is the
    # third choice. "default" follows JAX's own setting, JAX_DEFAULT_MATMUL_PRECISION: unless it is
    # set, NVIDIA GPUs use TF32 and TPUs bfloat16 for products of float32 arrays.
    c.model.matmul_precision = "default"
    # Implementation of attention: "auto", "xla", or "cudnn" for the fused kernel of NVIDIA GPUs,
    # which needs bfloat16. "auto" is "cudnn" where the devices and the number format allow it.
    c.model.attention = "auto"
    # "blocks": compute residual blocks again in the backward pass, which saves memory.
    c.model.remat = "none"

    c.model.encoder = ConfigDict()
    c.model.encoder.base_channels = 64  # channels of the first level; a multiple of 32
    # Channels of each level, as multiples of base_channels. Each level halves the image size.
    c.model.encoder.channel_mult = (1, 2, 4, 8, 8)
    c.model.encoder.num_res_blocks = 2  # residual blocks per level
    c.model.encoder.attention_resolutions = (16,)  # heights in pixels of levels with attention
    # How the last features become z. "mean": their mean over positions (the paper). "flatten": a
    # linear map of all positions, which learns faster on small images.
    c.model.encoder.pool = "mean"

    c.model.decoder = ConfigDict()  # the endpoint decoder: z -> x_T
    # Channels at 128x128 pixels. Smaller feature maps have more, 16 times as many at 4x4.
    c.model.decoder.base_channels = 64

    c.model.unet = ConfigDict()  # the denoiser
    c.model.unet.base_channels = 64  # channels of the first level; a multiple of 32
    c.model.unet.channel_mult = (1, 2, 4, 8)  # channels of each level, as for the encoder
    c.model.unet.num_res_blocks = 2  # residual blocks per level
    c.model.unet.attention_resolutions = (32, 16, 8)  # heights in pixels of levels with attention
    c.model.unet.head_channels = 64  # channels per attention head
    c.model.unet.dropout = 0.1  # probability in [0, 1)


def _bridge(c: ConfigDict) -> None:
    c.bridge = ConfigDict()
    # "vp" or "ve"; "vp_simple" and "ve_simple" are the same without preconditioning.
    c.bridge.schedule = "vp"
    # Smallest time of training and time grids. None: that of the schedule (vp 1e-4, ve 0.002).
    c.bridge.t_min = config_dict.placeholder(float)
    # Largest time T. None: that of the schedule (vp 1, ve 80).
    c.bridge.t_max = config_dict.placeholder(float)
    c.bridge.beta_d = 2.0  # vp: beta(t) = beta_min + beta_d t
    c.bridge.beta_min = 0.1  # vp: beta at t = 0
    # The preconditioning assumes three moments of pixels in [-1, 1]. The first is the standard
    # deviation of pixels of x_0.
    c.bridge.data_std = 0.5
    c.bridge.endpoint_std = 0.5  # assumed standard deviation of pixels of x_T
    c.bridge.covariance = 0.0  # assumed covariance of a pixel of x_0 and the same pixel of x_T
    # Where x_T comes from. "decoded": from z, by the endpoint decoder (DBAE). "free": x_T is
    # Gaussian noise, independent of z (DiffAE). "free" needs bridge.beta_d = 19.9 with vp. It has
    # no endpoint decoder, its U-Net reads x_t without x_T, and endpoint_std and covariance have no
    # effect.
    c.bridge.endpoint = "decoded"


def _optim(c: ConfigDict) -> None:
    c.optim = ConfigDict()
    c.optim.optimizer = "radam"  # or "adam"
    c.optim.learning_rate = 1e-4  # after the warm-up
    c.optim.schedule = "constant"  # or "cosine", which falls to 0 at train.num_steps
    c.optim.warmup_steps = 0  # steps of a linear warm-up from learning_rate / warmup_steps
    c.optim.grad_clip_norm = 0.0  # largest global norm of the gradient; 0: no clipping
    # Decay per step of the EMA of weights and running statistics. Evaluation uses the EMA weights.
    c.optim.ema_decay = 0.9999


def _train(c: ConfigDict) -> None:
    c.train = ConfigDict()
    c.train.batch_size = 256  # images per step over all devices (the paper: 4 GPUs with 64 each)
    # Microbatches per step, computed one after the other, which saves memory.
    c.train.accumulation_steps = 1
    # True: on GPUs, a resumed training ends with the same parameters, bit for bit, at some cost in
    # speed. The compiled programs are kept in the workdir. CPUs and TPUs do so without it. It
    # excludes cuDNN's attention.
    c.train.deterministic = False
    # Weight of the total correlation of z (in nats) in the loss, the paper's "DBAE+TC". It needs a
    # stochastic encoder. 0: off.
    c.train.tc_weight = 0.0
    # Share of the images of a batch that are denoised at t = T, where all that the U-Net knows of
    # them comes from the latent code. Short trainings of small models learn faster with it. The
    # other images have uniform times; in the paper all have (0).
    c.train.share_at_T = 0.0
    # Fine-tuning: a new run starts with the EMA weights of this model: a workdir, a file of
    # released weights, or the name of released weights. Empty: with random weights.
    c.train.init_from = ""
    c.train.init_parts = ("encoder", "decoder", "unet")  # networks that get these weights
    c.train.frozen = ()  # those of them that are not trained any further, such as ("encoder",)
    # "consistency": the U-Net of a trained model learns to sample sharp images in one or two
    # evaluations; `dbae distill` sets this key. The section `distill` has its settings.
    c.train.objective = "denoising"
    c.train.num_steps = 1_000_000  # length of the training
    # Besides metrics.jsonl, scalars go to these: "tensorboard", "wandb" (Weights & Biases),
    # "trackio". Each needs its package: tensorboardX, wandb or trackio.
    c.train.trackers = ()
    c.train.log_every_steps = 100  # interval of log lines and of rows in metrics.jsonl
    # Check whether z is used: latent variance, and the loss with shuffled latent codes. 0: never.
    c.train.diagnose_every_steps = 5_000
    c.train.picture_every_steps = 10_000  # write reconstructions of test images; 0: never
    c.train.evaluate_every_steps = 50_000  # reconstruction error of test images; 0: never


def _checkpoint(c: ConfigDict) -> None:
    c.checkpoint = ConfigDict()
    c.checkpoint.every_steps = 5_000  # interval of checkpoints
    c.checkpoint.keep_last = 3  # number of newest checkpoints to keep
    # Keep checkpoints at multiples of this step permanently. 0: none.
    c.checkpoint.keep_every_steps = 100_000


def _prior(c: ConfigDict) -> None:
    c.prior = ConfigDict()  # latent prior, DiffAE's latent diffusion; see `dbae train_prior`
    c.prior.num_layers = 10  # layers of the MLP (20 for LSUN)
    c.prior.width = 2048  # width of its hidden layers
    c.prior.timesteps = 1000  # steps of the diffusion
    c.prior.beta = 0.008  # variance that each of these steps adds
    # Stochastic encoders: train on samples of z instead of its mean.
    c.prior.sample_codes = False
    c.prior.optimizer = "radam"  # or "adam"
    c.prior.learning_rate = 1e-4  # constant
    c.prior.ema_decay = 0.9999  # decay per step of the EMA; sampling uses the EMA weights
    c.prior.batch_size = 128  # latent codes per step over all devices
    c.prior.num_steps = 750_000  # length of the training
    c.prior.log_every_steps = 1_000  # interval of log lines
    # Bound on the negative log-likelihood of the codes of test images. 0: at the last step only.
    c.prior.evaluate_every_steps = 50_000
    c.prior.checkpoint_every_steps = 10_000  # interval of checkpoints
    # Random timesteps per code at which that bound is evaluated; `timesteps` or more: all of them.
    c.prior.bound_points = 50
    c.prior.sampler = "ancestral"  # or "ddim", which is deterministic once its noise is drawn
    c.prior.sample_steps = 250  # network evaluations of the MLP per latent code


def _distill(c: ConfigDict) -> None:
    # What `dbae distill` trains with; the rest is as in training. The first three values and b are
    # those that CDBM (He et al., 2024) publishes for bridges; q, k and the number of stages are
    # those of ECT (Geng et al., 2024); share_at_T is ours.
    c.distill = ConfigDict()
    c.distill.num_steps = 50_000  # length of the distillation
    c.distill.batch_size = 128  # images per step over all devices
    c.distill.learning_rate = 1e-5  # largest learning rate
    c.distill.schedule = "constant"  # of the learning rate: "constant" or "cosine"
    c.distill.ema_decay = 0.9999  # decay per step of the EMA weights
    # The U-Net predicts the same image at t and at an earlier time
    # r = t (1 - n(t) / q^stage), n(t) = 1 + k sigmoid(-b t / T), with stages from 1.
    c.distill.q = 2.0  # factor by which the gap t - r shrinks from stage to stage
    c.distill.k = 8.0  # (t - r) / t near t = 0 is 1 + k/2 times that far from it
    c.distill.b = 20.0  # how fast this falls with t
    c.distill.stages = 8  # number of stages, of equal numbers of training steps
    # Share of the images of a batch at t = T, where the sampler begins. Their target is x_0.
    c.distill.share_at_T = 0.1


def _sample(c: ConfigDict) -> None:
    c.sample = ConfigDict()  # sampler of images; see docs/explanation/samplers.md
    # "euler", "heun", "dbim", "multistep2", "multistep3" or "consistency"; or the name of a plan
    # that sets all keys of this section: "accurate" (low error), "sharp" (with detail).
    c.sample.sampler = "euler"
    # Intervals N of the time grid, and network evaluations per image; heun needs 2N - 1
    # evaluations, and churn adds N.
    c.sample.steps = 100
    c.sample.grid = "karras"  # or "uniform", "power", "lambda" (uniform in log-SNR), "near_end"
    c.sample.rho = 7.0  # exponent of the karras and power grids
    # euler and heun: fraction in [0, 1) of every interval integrated with the reverse SDE.
    c.sample.churn = 0.0
    c.sample.eta = 0.0  # dbim: from 0, deterministic, to 1, a Markov bridge
    c.sample.boot = False  # dbim and multistep: whether the first step adds noise


def _eval(c: ConfigDict) -> None:
    c.eval = ConfigDict()
    c.eval.batch_size = 64  # images per batch
    c.eval.num_images = 10_000  # images of the test split that are evaluated; 0: all
    c.eval.num_train_images = 10_000  # training images for the linear baseline, in memory; 0: all
    c.eval.num_pictures = 8  # images shown in each figure
    c.eval.edited_images = 64  # test images that the suite "editing" edits
    c.eval.edit_scales = (-0.3, -0.15, 0.15, 0.3)  # scales of the edits, as in the paper
    c.eval.information_points = 64  # times at which the information bound evaluates the loss
    # What is measured: names of suites (docs/reference/scores.md), separated by commas; "all"
    # suites that apply; or "default": reconstruction, information, and the probe where it applies.
    c.eval.suite = "default"
    # Suffix that keeps results next to those of the same suite and data, as for two samplers.
    c.eval.label = ""
    # Seeds of every random measurement (probes, samplers with noise). Results give the mean and
    # the standard deviation over seeds.
    c.eval.seeds = 5
    # Stochastic encoders: measure samples of z instead of its mean.
    c.eval.sample_codes = False
    c.eval.lpips = False  # LPIPS; needs published weights, 3 channels and at least 31 pixels
    c.eval.weights_dir = "weights"  # folder of published weights
    c.eval.download_weights = False  # download missing published weights
    # TFDS split on which the epoch of the probe is chosen. "": a part of the training split.
    c.eval.validation_split = ""
    # Fraction of the training split for that part, from its end; of LFW, whole persons.
    c.eval.validation_share = 0.1
    c.eval.num_probe_images = 0  # training images whose codes are probed; 0: all
    # Normalise codes to mean 0 and standard deviation 1 before the probe, as DiffAE does.
    c.eval.normalise_codes = False
    c.eval.probe_epochs = 15  # epochs of the training of the probe
    c.eval.probe_batch_size = 128  # codes per step of the probe
    c.eval.probe_learning_rate = 1e-3  # learning rate of Adam
    # Images that the suite "generation" samples with the latent prior.
    c.eval.num_generated = 10_000
    # Number of such sets, with seeds 0, 1, ...; results give their mean and standard deviation.
    c.eval.generated_sets = 1
    c.eval.inception = False  # FID and other Inception scores; needs published weights
    c.eval.vgg16 = False  # precision and recall on features of VGG16; needs published weights
    # Published protocol of FID: "diffae", "infodiff10k-clean" or "adm". It fixes the numbers of
    # images. "": no such protocol, and the result is named after the network.
    c.eval.fid_preset = ""
