/** A step of a run. Pictures are null where the model's samples are latents. */
export interface Step {
  index: number;
  /** 0 where the sampler chooses its own steps. */
  steps: number;
  /** The noise level that it starts from. */
  sigma: number;
  seconds: number;
  evaluations: number;
  denoised: ImageData | null;
  noisy: ImageData | null;
}

/** What is asked for, by the names of the command line's flags. Whatever is left out is the model's own. */
export interface Job {
  command?: "generate" | "img2img" | "inpaint" | "outpaint" | "colorize" | "upscale" | "restore" | "stroke";
  model?: string;
  prompt?: string;
  negative_prompt?: string;
  /** 64 bits: a text where a number is too short. */
  seed?: number | string;
  steps?: number;
  sampler?: string;
  schedule?: string;
  guidance?: number;
  eta?: number;
  width?: number;
  height?: number;
  strength?: number;
  [field: string]: unknown;
}

export interface Made {
  image: ImageData | null;
  /** The final sample, `[height, width, channels]`. */
  sample: Float32Array;
  steps: number;
  evaluations: number;
  seconds: number;
}

export interface DeviceInfo {
  name: string;
  kind: string;
  backend: string;
  driver: string;
  features: string[];
}

export interface Model {
  id: string;
  width: number;
  height: number;
  steps: number | null;
  guidance: number;
  takes_prompt: boolean;
  classes: number | null;
  makes_pictures: boolean;
  /** Whether every step has pictures. */
  makes_pixels: boolean;
}

export interface Case {
  kernel: string;
  case: string;
  passed: boolean;
  error: number | null;
  tolerance: number;
  message: string | null;
}

/** What engines reject with. */
export interface EngineError extends Error {
  /** Whether models must be loaded again. */
  reload?: boolean;
}

export class Headwater {
  static open(options?: { device?: "auto" | "gpu" | "cpu"; leastLimits?: boolean; threads?: number; worker?: URL | string }): Promise<Headwater>;
  info: DeviceInfo;
  load(
    model: string,
    from: string | URL | Map<string, Uint8Array | Blob> | Iterable<File>,
    options?: { signal?: AbortSignal; onProgress?: (done: { bytes: number; of: number }) => void },
  ): Promise<Model>;
  check(job: Job, pictures?: { image?: ImageData; mask?: ImageData }): Promise<{ bytes: number; steps: number; warnings: string[] }>;
  generate(
    job: Job,
    options?: { image?: ImageData; mask?: ImageData; signal?: AbortSignal; onStep?: (step: Step) => void },
  ): Promise<Made>;
  memory(): Promise<number>;
  samplers(): Promise<{ samplers: { name: string; summary: string }[]; schedules: string[] }>;
  selftest(options?: { device?: "gpu" | "cpu"; leastLimits?: boolean; brief?: boolean; onCase?: (one: Case) => void }): Promise<void>;
  close(): void;
}
