// The mask of inpainting, painted with a brush over the picture. It is a list of strokes, so that each can be taken back.

const mask = (() => {
  const canvas = $("mask");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const cursor = $("cursor");
  let strokes = [];
  let current = null;
  /** Where the keyboard's brush is, in the picture's pixels. */
  let place = null;
  let erases = false;

  /** The brush's diameter, in the picture's pixels: a share of its shorter side. */
  const size = () => Math.max(1, (Math.min(canvas.width, canvas.height) * $("brush").value) / 100);

  function draw() {
    pen.globalCompositeOperation = "source-over";
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.lineCap = pen.lineJoin = "round";
    pen.strokeStyle = pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--mask");
    for (const stroke of current ? [...strokes, current] : strokes) {
      if (stroke.inverts) {
        pen.globalCompositeOperation = "xor";
        pen.fillRect(0, 0, canvas.width, canvas.height);
        continue;
      }
      pen.globalCompositeOperation = stroke.erases ? "destination-out" : "source-over";
      pen.beginPath();
      const [first, ...others] = stroke.points;
      // A line of no length is not drawn, so that a dot needs a disc.
      pen.arc(...first, stroke.size / 2, 0, 2 * Math.PI);
      pen.fill();
      pen.lineWidth = stroke.size;
      pen.beginPath();
      pen.moveTo(...first);
      for (const point of others) pen.lineTo(...point);
      pen.stroke();
    }
    $("undo").disabled = $("clear").disabled = strokes.length === 0;
    $("save-mask").disabled = strokes.length === 0;
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  }

  function show([x, y]) {
    const box = canvas.getBoundingClientRect();
    const scale = box.width / canvas.width;
    cursor.hidden = false;
    Object.assign(cursor.style, { left: `${x * scale}px`, top: `${y * scale}px`, width: `${size() * scale}px`, height: `${size() * scale}px` });
  }

  const begin = (point) => ({ erases, size: size(), points: [point] });
  function finish() {
    if (current) strokes.push(current);
    current = null;
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    wrong("");
    current = begin(at(event));
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    show(at(event));
    if (!current) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) current.points.push(at(one));
    draw();
  });
  canvas.addEventListener("pointerup", finish);
  canvas.addEventListener("pointercancel", finish);
  canvas.addEventListener("pointerleave", () => { cursor.hidden = true; });
  canvas.addEventListener("blur", () => { cursor.hidden = true; });
  canvas.addEventListener("keydown", (event) => {
    const far = (event.shiftKey ? 1 : 4) * Math.max(1, Math.min(canvas.width, canvas.height) / 100);
    const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    place ??= [canvas.width / 2, canvas.height / 2];
    if (moves[event.key]) {
      place = [0, 1].map((axis) => Math.min(Math.max(place[axis] + moves[event.key][axis], 0), [canvas.width, canvas.height][axis]));
    } else if (event.key === " ") {
      current = begin(place);
      finish();
      say("Painted a dot");
    } else if (event.key === "[" || event.key === "]") {
      $("brush").value = Number($("brush").value) + (event.key === "]" ? 5 : -5);
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      undo();
    } else return;
    event.preventDefault();
    show(place);
  });

  function undo() { strokes.pop(); draw(); }
  $("undo").addEventListener("click", undo);
  $("clear").addEventListener("click", () => { strokes = []; draw(); });
  $("invert").addEventListener("click", () => { strokes.push({ inverts: true }); draw(); });
  $("save-mask").addEventListener("click", async () => {
    const url = URL.createObjectURL(await api.file());
    make("a", { href: url, download: "mask.png" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
  for (const button of document.querySelectorAll("[data-brush]")) {
    button.addEventListener("click", () => {
      erases = button.dataset.brush === "erase";
      for (const one of document.querySelectorAll("[data-brush]")) one.setAttribute("aria-pressed", one === button);
    });
  }

  const pixels = () => pen.getImageData(0, 0, canvas.width, canvas.height);
  const api = {
    /** Begins with an empty mask for a picture of that size. */
    fit(width, height) {
      Object.assign(canvas, { width, height });
      strokes = [];
      place = null;
      draw();
    },
    /** Whether anything is to be made anew. */
    painted() {
      const { data } = pixels();
      for (let at = 3; at < data.length; at += 4) if (data[at] >= 128) return true;
      return false;
    },
    /** A PNG of the picture's size: white is made anew, black is kept. */
    async file() {
      const image = pixels();
      for (let at = 0; at < image.data.length; at += 4) image.data.fill(image.data[at + 3] >= 128 ? 255 : 0, at, at + 3).fill(255, at + 3, at + 4);
      const copy = canvasOf(canvas.width, canvas.height);
      copy.getContext("2d").putImageData(image, 0, 0);
      return pngOf(copy);
    },
    draw,
  };
  return api;
})();
