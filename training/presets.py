"""The settings of every run that reproduce.py makes."""

ON = ["--ns-steps", 0, "--lr", 2e-3, "--warm-up", 40]  # of runs that go on from an exported folder
LATER = ["--lr", 2.5e-3, "--log-sigma", 1.2, 1.5]  # of the later ones; of two equal flags the last counts
DISTIL = ["--threads", 2, "--ns-steps", 0, "--warm-up", 40, "--ema", 0.998, "--save-minutes", 4]
# of several runs that differ in length and seed alone
STYLES = ["--recipe", "wide_styles", "--batch", 64, "--compile", "--threads", 2, *ON, *LATER, "--lr", 3e-3, "--warm-up", 200, "--ema", 0.999, "--decay", 0.6]
STYLES_STUDENT = ["--recipe", "wide_styles", "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--middle", 0.2, "--guidance", 1.5, 3.5, 2]
LATENT_TEACHER = ["--ns-steps", 0, "--lr", 3e-3, "--log-sigma", 0.8, 1.5, "--ema", 0.9995, "--decay", 0.5]
LATENT_STUDENT = ["--ns-steps", 0, "--lr", 7e-4, "--ema", 0.998, "--decay", 0.7, "--middle", 0.2, "--guidance", 1.5, 3.5, 2]
PRESETS = {
    # the settings of icons-64 and icons-64-consistency (icons-64/README.md says how long they ran)
    "pixels": dict(
        recipe="wide",
        teacher=["--recipe", "emoji", "--fold-in", "--minutes", 105],
        broader=["--recipe", "common", "--minutes", 54, "--threads", 1, *ON, "--ema", 0.995, "--decay", 0.35, "--seed", 5],
        styles=["--recipe", "styles", "--minutes", 85, "--threads", 2, *ON, "--ema", 0.998, "--decay", 0.5, "--seed", 6],
        even=["--recipe", "even", "--minutes", 56, "--steps", 2675, "--threads", 2, *ON, *LATER, "--ema", 0.999, "--decay", 0.5, "--seed", 8],
        everyday=["--recipe", "everyday", "--minutes", 38, "--threads", 2, *ON, *LATER, "--ema", 0.998, "--decay", 0.6, "--seed", 9],
        whiter=["--recipe", "everyday", "--minutes", 72, "--threads", 2, *ON, *LATER, "--ema", 0.998, "--decay", 0.6, "--seed", 10],
        wide=["--minutes", 76, "--batch", 64, "--compile", "--threads", 2, *ON, *LATER, "--lr", 3e-3, "--warm-up", 200, "--ema", 0.999,
              "--decay", 0.6, "--seed", 11],
        wide_even=["--recipe", "wide_even", "--minutes", 68, "--batch", 64, "--compile", "--threads", 2, *ON, *LATER, "--lr", 3e-3,
                   "--warm-up", 200, "--ema", 0.999, "--decay", 0.6, "--seed", 12],
        judge=["--pictures", 300_000],
        student=["--recipe", "everyday", "--minutes", 42, *DISTIL, "--lr", 1e-3, "--decay", 0.6, "--seed", 2, "--distance", "picture"],
        again=["--recipe", "everyday", "--minutes", 52, *DISTIL, "--lr", 5e-4, "--decay", 0.9, "--seed", 3],
        wide_student=["--minutes", 30, "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--seed", 4],
        even_student=["--recipe", "wide_even", "--minutes", 26, "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--middle", 0.4,
                      "--seed", 5],
        ramp_student=["--recipe", "wide_even", "--minutes", 75, "--batch", 64, "--compile", *DISTIL, "--lr", 7e-4, "--decay", 0.9, "--middle", 0.4,
                      "--guidance", 1, 4, 4, "--seed", 6],
        interval_student=["--recipe", "wide_even", "--minutes", 17, "--batch", 64, "--compile", *DISTIL, "--lr", 5e-4, "--decay", 1, "--ema", 0.99,
                          "--middle", 0.2, "--guidance", 1.5, 3.5, 2, "--seed", 7],
        wide_styles=["--minutes", 66, "--seed", 13, *STYLES],
        styles_student=["--minutes", 34, "--seed", 8, *STYLES_STUDENT],
        styles_again=["--minutes", 26, "--seed", 10, *STYLES_STUDENT],
        longer=["--minutes", 60, "--seed", 14, *STYLES],
        longer_student=["--minutes", 40, "--seed", 11, *STYLES_STUDENT],
        once_more=["--minutes", 75, "--seed", 15, *STYLES],
        once_more_student=["--minutes", 38, "--seed", 12, *STYLES_STUDENT],
        ct=["--recipe", "shapes", "--minutes", 23, "--threads", 1, "--width", 128, "--layers", 4, "--ns-steps", 0, "--lr", 6e-3,
            "--lowest", -1.6, "--decay", 0.5, "--save-minutes", 2],
    ),
    # the settings of icons-128 (icons-128/README.md says how they ran; judge and student have not yet)
    "cpu": dict(
        recipe="wide_things",
        autoencoder=["--pictures", 34_500, "--batch", 4, "--threads", 2, "--seed", 20],
        latents=["--count", 100_000, "--fold-in", "--threads", 2, "--seed", 21],
        latent_teacher=["--minutes", 53, "--batch", 64, "--threads", 2, "--compile", *LATENT_TEACHER, "--warm-up", 300, "--seed", 22],
        judge=["--pictures", 160_000, "--threads", 2],
        latent_student=["--minutes", 60, "--batch", 64, "--threads", 2, "--compile", *LATENT_STUDENT, "--warm-up", 100, "--seed", 23],
        quality=["--fold-in"],
    ),
    # the same on one large GPU, in every style
    "gpu": dict(
        recipe="full",
        autoencoder=["--pictures", 1_000_000, "--batch", 32, "--workers", 15, "--seed", 30],
        latents=["--count", 1_000_000, "--fold-in", "--workers", 15, "--seed", 31],
        latent_teacher=["--pictures", 20_000_000, "--batch", 512, "--workers", 4, *LATENT_TEACHER, "--warm-up", 500, "--seed", 32],
        judge=["--pictures", 600_000, "--batch", 256, "--workers", 15],
        latent_student=["--pictures", 4_000_000, "--batch", 256, "--workers", 4, *LATENT_STUDENT, "--warm-up", 200, "--seed", 33],
        quality=["--fold-in"],
    ),
}
# a teacher's run goes on from where the last one ended, a student's belongs to the teacher of its time
RUNS = dict(teacher="teacher", broader="teacher", styles="teacher", even="teacher", everyday="teacher", student="student",
            whiter="teacher", again="student", wide="teacher", wide_student="student", wide_even="teacher", even_student="student",
            ramp_student="student", interval_student="student", wide_styles="teacher", styles_student="student",
            styles_again="student", longer="teacher", longer_student="student", once_more="teacher", once_more_student="student",
            latent_teacher="teacher", latent_student="student")
