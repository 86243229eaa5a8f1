"""Records -> summary.json of the comparing jobs (compare, eval, ablate-threshold). Torch-free; no generation here.

Everything is a plain dict. An *estimate* is ``{"value", "se", "low", "high", "n"}``: a mean, its standard error
clustered by question (item), the 95% interval (Student t over items) and the number of items; each may be None
(se, low, high where n < 2). Shares and quality are fractions in [0, 1], times are seconds.

summary.json of ``compare`` and ``eval``::

    schema 1, kind, k (samples an item), pass_at [1, 2, 4], tasks [names], budgets {task: {"tight", "loose"}},
    items {task: number of items}, sampling {...}, seed, batch (most requests at once),
    interval (text: how intervals are made),
    references [variant names that differences are taken to],
    variants [{"name", "model", "method": {name, threshold, depth, keep_rate}}],
    rows [...], differences [...], failures [{"variant", "task", "item", "sample", "error"}, at most 20]

A *row* is one variant x task x budget; task "overall" is the mean over tasks (throughput: totals)::

    variant, model, method (dict as above), task, budget ("tight" | "loose"), budget_slots (int; None for overall),
    items, samples, failed (count: engine errors), batch,
    avg            estimate: share of samples that are right (avg@k)
    pass           {"1": estimate, "2": ..., "4": ...}: unbiased pass@k
    truncated      estimate: share of samples cut by the budget (they count as wrong)
    slots          estimate: mean slots a sample within the budget
    tokens         estimate: mean real tokens a sample within the budget (no PADs)
    tokens_per_slot  estimate (ratio of sums)
    kept_share     estimate, drafts kept / drafts offered, over whole runs (both budgets alike); None without drafts
    acceptance     estimate, tokens a step after the first (eagle: the acceptance length), over whole runs
    ttft_s, first_pair_s, tpot16_s, tpot_s   {"p50", "p90", "low", "high"} under this batch, not at batch 1 (that is
                   the latency job); low/high: 95% bootstrap interval of the median over items; None where no times
    throughput     {"tokens_s", "low", "high", "full_tokens_s", "tokens", "wall_s"}: whole batch together;
                   full_tokens_s only while the batch was full (None if it never was); None without records

A *difference* is paired by item, variant minus reference::

    variant, reference, task, budget, metric ("avg" | "pass@1" | "pass@2" | "pass@4" | "slots" | "tokens"),
    value, se, low, high, n

summary.json of ``ablate-threshold`` (made in ablations/threshold.py) has the same head and ``points`` instead of rows::

    model, thresholds, matched ("per task": how keep_rate was chosen), points [...], differences [...]
    point       a row as above, and: threshold, gate ("confidence" | "random"), keep_rate (random: the rate asked for),
                pad_ratio (estimate, 1 - kept_share), reused (bool: gate random at kept share 0 or 1 is the same
                decoding as the confidence gate's point; its numbers are that point's, nothing was generated)
    difference  threshold, task, budget, metric, value, se, low, high, n: confidence gate minus random gate, paired by
                item; absent where reused

summary.json of ``latency`` (made in bench/latency.py)::

    schema 1, kind, batch 1, tokens (output tokens), trials, input_lengths, reference (variant name), threads, variants,
    rows    [{"variant", "model", "method", "keep" (forced kept share, None: as the model decides), "input_tokens",
              "trials", "ttft_s", "first_pair_s", "tpot16_s", "tpot_s" (each {"p50", "p90"}), "tokens_per_slot",
              "kept_share" (None without drafts), "tokens_per_step"}]
    ratios  [{"variant", "keep", "reference", "input_tokens", "metric" ("ttft" | "first_pair" | "tpot16" | "tpot"),
              "value" (median of reference over median of variant: above 1 is faster), "low", "high" (95% paired
              bootstrap over trials)}]
    floor   [{"variant", "keep", "input_tokens", "tpot_bytes_ratio", "tpot_flops_ratio", "ttft_flops_ratio",
              "tpot_measured", "ttft_measured"}]: what shapes allow (regular over variant, bench/roofline.py) beside
              what was measured
"""
