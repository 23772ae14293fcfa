"""Every key there is, with its unit or reason: the paper's settings for CelebA at 64x64.

A data set's own file overrides only what differs. What is allowed: dbae_jax/config.py.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # root of every random draw: weights, data order, times, noise
    _data(c)
    _model(c)
    _bridge(c)
    _optim(c)
    _train(c)
    _checkpoint(c)
    _prior(c)
    _sample(c)
    _eval(c)
    return c


def _data(c: ConfigDict) -> None:
    c.data = ConfigDict()
    c.data.name = "celeba"  # data set, see docs/data.md
    c.data.data_dir = "data"  # folder that dbae_jax.data.prepare wrote into
    c.data.lmdb = ""  # a DiffAE LMDB to read instead of prepared data; "": none
    c.data.train_split = "train"  # TFDS split expressions: "train[10000:]", "train+validation"
    c.data.test_split = "test"
    c.data.crop = "center"  # "center" square, "d2c" (CelebA's faces), "zoom" (1.1 times the size,
    # then the center), "short" (short side to the size, then the center); resizing is antialiased
    c.data.image_size = 64  # pixels; square, a power of two from 16 up
    c.data.channels = 3
    c.data.flip = True  # mirror training images at random; wrong for digits and text
    c.data.num_threads = 16  # that decode; the order of images does not depend on these three
    c.data.num_workers = 0  # processes that decode, each with its threads; 0: the trainer's own
    c.data.prefetch_batches = 4  # batches in host memory ahead of the training step


def _model(c: ConfigDict) -> None:
    c.model = ConfigDict()
    c.model.latent_dim = 512  # D, the width of z
    c.model.stochastic = False  # True: the encoder gives mean and scale of a Gaussian z ("DBAE"),
    # False: z itself ("DBAE-d")
    c.model.dtype = "float32"  # what the networks compute in; norms, softmax and loss stay float32
    c.model.param_dtype = "float32"  # what the weights are kept in; nothing else trains
    c.model.matmul_precision = "default"  # "highest" for true float32 products on TPU and GPU
    c.model.attention = "auto"  # "xla", or "cudnn" for the fused kernel of NVIDIA GPUs (bfloat16)
    c.model.remat = "none"  # "blocks": recompute residual blocks in the backward pass, save memory

    c.model.encoder = ConfigDict()
    c.model.encoder.base_channels = 64  # a multiple of 32, the groups of the norms
    c.model.encoder.channel_mult = (1, 2, 4, 8, 8)  # one entry a level, each half the size before
    c.model.encoder.num_res_blocks = 2  # a level
    c.model.encoder.attention_resolutions = (16,)  # pixels
    c.model.encoder.pool = "mean"  # last features -> z: "mean" over positions (the paper), or
    # "flatten": a linear map of all positions, which learns faster on small images

    c.model.decoder = ConfigDict()
    c.model.decoder.base_channels = 64  # channels at 128x128; 16 times as many at 4x4

    c.model.unet = ConfigDict()
    c.model.unet.base_channels = 64
    c.model.unet.channel_mult = (1, 2, 4, 8)
    c.model.unet.num_res_blocks = 2
    c.model.unet.attention_resolutions = (32, 16, 8)
    c.model.unet.head_channels = 64  # channels an attention head
    c.model.unet.dropout = 0.1


def _bridge(c: ConfigDict) -> None:
    c.bridge = ConfigDict()
    c.bridge.schedule = "vp"  # "vp", "ve", or the same without preconditioning: "vp_simple", ...
    c.bridge.t_min = config_dict.placeholder(float)  # None: the schedule's own (vp 1e-4, ve 0.002)
    c.bridge.t_max = config_dict.placeholder(float)  # T. None: the schedule's own (vp 1, ve 80)
    c.bridge.beta_d = 2.0  # vp: beta(t) = beta_min + beta_d t
    c.bridge.beta_min = 0.1
    c.bridge.data_std = 0.5  # of pixels of x_0, in units of [-1, 1]
    c.bridge.endpoint_std = 0.5  # of pixels of x_T
    c.bridge.covariance = 0.0  # between a pixel of x_0 and the same pixel of x_T
    c.bridge.endpoint = "decoded"  # x_T, from z; or "free": noise, as in DiffAE (no endpoint
    # decoder, a U-Net of x_t alone, no use for endpoint_std and covariance); vp: beta_d = 19.9


def _optim(c: ConfigDict) -> None:
    c.optim = ConfigDict()
    c.optim.optimizer = "radam"  # or "adam"
    c.optim.learning_rate = 1e-4
    c.optim.schedule = "constant"  # or "cosine": down to 0 at train.num_steps
    c.optim.warmup_steps = 0  # linear, from learning_rate / warmup_steps
    c.optim.grad_clip_norm = 0.0  # of the global norm; 0: off
    c.optim.ema_decay = 0.9999  # a step, of weights and statistics; evaluation uses the average


def _train(c: ConfigDict) -> None:
    c.train = ConfigDict()
    c.train.batch_size = 256  # images a step over all devices (the paper: 4 GPUs of 64)
    c.train.accumulation_steps = 1  # parts of a batch, one after the other, to save memory
    c.train.tc_weight = 0.0  # of the total correlation of z in nats ("DBAE+TC"); stochastic
    # encoders; 0: off
    c.train.num_steps = 1_000_000
    c.train.log_every_steps = 100
    c.train.diagnose_every_steps = 5_000  # latent variance, loss with shuffled codes; 0: never
    c.train.picture_every_steps = 10_000  # reconstructions of test images; 0: never
    c.train.evaluate_every_steps = 50_000  # reconstruction error of test images; 0: never


def _checkpoint(c: ConfigDict) -> None:
    c.checkpoint = ConfigDict()
    c.checkpoint.every_steps = 5_000
    c.checkpoint.keep_last = 3  # newest checkpoints
    c.checkpoint.keep_every_steps = 100_000  # and these for good; 0: none


def _prior(c: ConfigDict) -> None:
    c.prior = ConfigDict()  # of z, trained by --mode=train_prior; DiffAE's latent diffusion
    c.prior.num_layers = 10  # of the MLP (20 for LSUN)
    c.prior.width = 2048  # of its hidden layers
    c.prior.timesteps = 1000  # steps of the diffusion
    c.prior.beta = 0.008  # variance that each of them adds
    c.prior.sample_codes = False  # stochastic encoders: train on draws of z instead of its mean
    c.prior.optimizer = "radam"  # or "adam"
    c.prior.learning_rate = 1e-4
    c.prior.ema_decay = 0.9999  # a step; sampling uses the average
    c.prior.batch_size = 128  # codes a step over all devices
    c.prior.num_steps = 750_000
    c.prior.log_every_steps = 1_000
    c.prior.evaluate_every_steps = 50_000  # likelihood bound of test images' codes; 0: at the end
    c.prior.checkpoint_every_steps = 10_000
    c.prior.bound_points = 50  # of the timesteps, drawn for each code; timesteps or more: all
    c.prior.sampler = "ancestral"  # or "ddim", deterministic but for its start
    c.prior.sample_steps = 250  # evaluations of the MLP a code


def _sample(c: ConfigDict) -> None:
    c.sample = ConfigDict()
    c.sample.sampler = "euler"  # or "heun", "dbim", "multistep2", "multistep3"
    c.sample.steps = 100  # N intervals: N evaluations (heun 2N - 1; churn adds N)
    c.sample.grid = "karras"  # or "uniform", "power", "lambda"
    c.sample.rho = 7.0  # bend of the karras and power grids
    c.sample.churn = 0.0  # euler, heun: share of every interval walked by the reverse SDE first
    c.sample.eta = 0.0  # dbim: from 0, deterministic, to 1, a Markov bridge
    c.sample.boot = False  # dbim, multistep: draw the noise of the first step; False: none


def _eval(c: ConfigDict) -> None:
    c.eval = ConfigDict()
    c.eval.batch_size = 64  # images at a time
    c.eval.num_images = 10_000  # of the test split; 0: all
    c.eval.num_train_images = 10_000  # for the linear baseline, held in memory; 0: all
    c.eval.num_pictures = 8  # images in a picture
    c.eval.information_points = 64  # times at which the information bound measures the loss
    c.eval.suite = "default"  # what is measured: names of docs/evaluation.md with commas between,
    # "all" that apply, or "default": reconstruction, information, and the probe where it applies
    c.eval.label = ""  # keeps results beside others of the same suite and data, as of two samplers
    c.eval.seeds = 5  # of whatever draws: probes, samplers with noise; mean and spread are given
    c.eval.sample_codes = False  # stochastic encoders: measure draws of z instead of its mean
    c.eval.lpips = False  # needs published weights, 3 channels and 31 pixels or more
    c.eval.weights_dir = "weights"  # folder of published weights
    c.eval.download_weights = False  # fetch those that are missing
    c.eval.validation_split = ""  # TFDS split that the probe is chosen on; "": a part of training's
    c.eval.validation_share = 0.1  # that part, its last; of LFW whole persons
    c.eval.num_probe_images = 0  # training images whose codes are measured; 0: all
    c.eval.normalise_codes = False  # to mean 0 and std 1 before the probe, as DiffAE does
    c.eval.probe_epochs = 15
    c.eval.probe_batch_size = 128
    c.eval.probe_learning_rate = 1e-3  # of Adam
    c.eval.num_generated = 10_000  # images that the suite "generation" draws from the prior
    c.eval.generated_sets = 1  # so many sets of them, of seeds 0, 1, ...: mean and spread are given
    c.eval.inception = False  # compare them on Inception's features too; needs published weights
    c.eval.vgg16 = False  # precision and recall on VGG16's features too; needs published weights
    c.eval.fid_preset = ""  # "diffae", "infodiff10k-clean" or "adm": the published protocol of FID,
    # whose numbers of images must be there; "": the distance goes by the network's name
