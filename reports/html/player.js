// The player: how much of each lane is shown, by steps (slider) or by the clock (play, in the times that were measured).
const SPEEDS = [["fit", "fit to 10 s"], ["1", "true time"], ["0.25", "1/4"], ["0.1", "1/10"], ["0.02", "1/50"], ["4", "4 ×"], ["16", "16 ×"], ["64", "64 ×"]];
const FIT_S = 10;

class Player {
  constructor(at) {
    this.at = at; // elements by name
    this.lanes = [];
    this.frame = 0;
    for (const [value, words] of SPEEDS) at.speed.append(new Option(words, value));
    at.play.addEventListener("click", () => (this.frame ? this.stop() : this.play()));
    at.back.addEventListener("click", () => this.move(-1));
    at.forth.addEventListener("click", () => this.move(1));
    at.slider.addEventListener("input", () => (this.stop(), this.show(Number(at.slider.value))));
    at.wait.addEventListener("change", () => (this.stop(), this.describe()));
    at.speed.addEventListener("change", () => this.stop());
  }

  load(lanes) {
    this.stop();
    this.lanes = lanes;
    this.longest = Math.max(1, ...lanes.map((l) => l.steps.length));
    this.at.slider.max = this.longest;
    this.timed = lanes.filter((l) => l.steps.length && l.steps[0].at !== null); // the others stand still
    this.at.play.disabled = !this.timed.length;
    this.at.play.title = this.timed.length ? "Replay in measured time" : "These records have no times";
    this.show(this.longest);
  }

  // When a lane's clock starts: at submission, or with its first token.
  start(lane) {
    return this.at.wait.checked ? lane.steps[0].at : 0;
  }

  duration() {
    return Math.max(0.001, ...this.timed.map((l) => l.steps[l.steps.length - 1].at - this.start(l)));
  }

  rate() {
    const chosen = this.at.speed.value;
    return chosen === "fit" ? this.duration() / FIT_S : Number(chosen);
  }

  move(by) {
    this.stop();
    this.show(Math.min(this.longest, Math.max(0, Number(this.at.slider.value) + by)));
  }

  // Show each lane's first `count` steps.
  show(count) {
    this.at.slider.value = count;
    for (const lane of this.lanes) this.reveal(lane, Math.min(count, lane.steps.length));
    this.describe();
  }

  reveal(lane, count) {
    if (lane.count === count) return;
    const [low, high] = lane.count === undefined ? [0, lane.steps.length] : [Math.min(lane.count, count), Math.max(lane.count, count)];
    for (let i = low; i < high; i++) lane.boxes[i].classList.toggle("later", i >= count);
    if (lane.marked) lane.marked.classList.remove("now");
    lane.count = count;
    const whole = count === lane.steps.length;
    lane.marked = count && !whole ? lane.boxes[count - 1] : null;
    if (lane.marked) {
      lane.marked.classList.add("now");
      const [box, area] = [lane.marked, lane.chips];
      const top = box.offsetTop - area.offsetTop;
      if (top < area.scrollTop || top + box.offsetHeight > area.scrollTop + area.clientHeight) area.scrollTop = top - area.clientHeight / 2;
    }
    lane.telling.textContent = count ? stepWords(lane.steps[count - 1], lane.trace.kind, lane.vocabulary) : whole ? "nothing came out" : "nothing yet";
  }

  describe() {
    const shown = Number(this.at.slider.value);
    this.at.clock.textContent = shown >= this.longest ? `all ${this.longest} steps` : `step ${shown} of ${this.longest}`;
  }

  play() {
    if (!this.timed.length) return;
    const [rate, end, began] = [this.rate(), this.duration(), performance.now()];
    this.at.play.textContent = "Stop";
    this.at.play.setAttribute("aria-pressed", "true");
    const tick = () => {
      const clock = Math.min(end, ((performance.now() - began) / 1000) * rate);
      this.elapsed = clock;
      let most = 0;
      for (const lane of this.timed) {
        const until = clock + this.start(lane) + 1e-9;
        let count = lane.count;
        if (count && lane.steps[count - 1].at > until) count = 0;
        while (count < lane.steps.length && lane.steps[count].at <= until) count++;
        this.reveal(lane, count);
        most = Math.max(most, count);
      }
      this.at.slider.value = most;
      this.at.clock.textContent = `${clock.toFixed(clock < 10 ? 3 : 1)} s of ${end.toFixed(end < 10 ? 3 : 1)}`;
      if (clock < end) this.frame = requestAnimationFrame(tick);
      else this.stop();
    };
    for (const lane of this.timed) this.reveal(lane, 0);
    this.frame = requestAnimationFrame(tick);
  }

  stop() {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.at.play.textContent = "Play";
    this.at.play.setAttribute("aria-pressed", "false");
  }
}
