// What the page and the server tell one another, and which elements the page has: for the type checker alone.

type Action = "accept" | "reject" | "domain" | "identity" | "trim" | "undo";
/** Of each kind the latest review holds. */
type Kind = "verdict" | "domain" | "identity" | "trim";

/** One clip as the list has it: `v` is its version, `source` a place among the sources, `who` the person it shows. */
interface Row {
  id: string;
  v: string;
  source: number;
  domain: string;
  frames: number;
  fps: number;
  start: number;
  who: string;
  missed?: string;
  flags?: string[];
  proposed?: string;
}

/** What an action says beside its name. */
interface Content {
  reason?: string;
  domain?: string;
  identity_id?: string;
  note?: string;
}

/** A review as the server tells it. */
interface Review extends Content {
  review_id?: string;
  clip_id: string;
  who: string;
  at: string;
  action: Action;
  trim?: [number, number];
  undoes?: string;
  blind?: boolean;
  holds?: boolean;
}

/** A review as it is sent. */
interface ReviewBody extends Content {
  clip_id: string;
  version: string;
  who: string;
  at: string;
  action: Action;
  trim?: { start: number; stop: number };
  undoes?: string;
  blind?: boolean;
}

/** What a key or button says of a clip, beside which clip it is. */
type Words = Content & Pick<ReviewBody, "trim">;

/** What holds for one clip. `stale` is what was said of an earlier version; `blind`: what was said is not shown. */
interface ClipState {
  verdict?: Review;
  domain?: Review;
  identity?: Review;
  trim?: Review;
  stale?: Review[];
  blind?: boolean;
}

/** A review on its way; `undoes_at` is the time of one that it undoes and that has no id yet. */
interface OutboxEntry {
  body: ReviewBody;
  undoes_at?: string;
}

/** An own review that can be undone; without an id while it is on its way. */
interface OwnReview {
  clip_id: string;
  action: Action;
  review_id?: string;
  at?: string;
}

interface Setup {
  edition: string;
  workspace: string;
  place: string;
  reviewer: string;
  now: string;
  num_clips: number;
  page_rows: number;
  domains: string[];
  reasons: string[];
  channels: string[];
  compared: boolean;
  sources: { id: string; title: string }[];
}

interface Score {
  name: string;
  value: number | null;
  limit: number | null;
  bound: "min" | "max";
  missed: boolean;
  reason: string | null;
  why: string;
  high?: number | null;
}

interface Router {
  proposed: string;
  probability: number;
  claim: number | null;
}

interface Detail {
  id: string;
  size_px: number;
  span: [number, number];
  scores: Score[];
  router: Router | null;
  source: { id: string; title: string; license: string; commercial: boolean | null; credit: string; uri: string };
  neighbours: string[];
  compared: boolean;
  copies: { id: string; kind: string; distance: number; limit: number }[];
  said: Review[];
}

/** Frame by frame: see `packed_arrays` on the server for names and axes. */
type Arrays = Record<string, { shape: number[]; data: Float32Array }>;
type Trim = [number, number] | null;

interface Filters {
  domain?: string;
  verdict?: string;
  reason?: string;
  who?: string;
  flag?: string;
  sort?: string;
  text?: string;
  stale?: boolean;
}

type Overlays = Record<"landmarks" | "pose" | "box", boolean>;

/** Where a clip is seen and acted on: alone, or as the selected tile. */
interface ClipView {
  row: Row | undefined;
  advance(): void;
  show(id: string): void;
  paint(): void;
}

/** Elements that are more than an HTMLElement to the page, by id. */
interface PageElements {
  accept: HTMLButtonElement;
  confirm: HTMLButtonElement;
  curve: HTMLCanvasElement;
  dialog: HTMLDialogElement;
  filters: HTMLFormElement;
  overlay: HTMLCanvasElement;
  // of the bundle's page
  filter: HTMLSelectElement;
  note: HTMLTextAreaElement;
  video: HTMLVideoElement;
  who: HTMLInputElement;
}

/** One clip of a bundle. */
interface BundleClip {
  id: string;
  version: string;
  title: string;
  domain: string;
  license: string;
  credit: string;
  address: string;
  duration_s: number;
  num_frames: number;
  verdict: { action: Action; reason: string | null; note: string } | null;
  filter: string;
  scores: { name: string; measured: string; limit: string; missed: boolean }[];
}

/** One decision in a bundle's log; `undoes` is the place of another in it. */
interface LogEntry {
  clip_id: string;
  version: string;
  who: string;
  at: string;
  action: Action;
  reason?: string;
  note?: string;
  undoes?: number;
}
