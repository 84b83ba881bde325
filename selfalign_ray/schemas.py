"""The table that each saved stage writes: one pyarrow schema a stage, in pipeline order.

A stage's output is checked against its schema before it is saved, so a column named here is the
contract between two stages and the only place where it is spelled. Every schema begins with the
columns of the one above it that live on; `drop_reason` is null while a row is kept.
"""

from __future__ import annotations

import pyarrow as pa

TEXTS = pa.list_(pa.string())

# Where a row comes from: the same columns from the first read to the last write.
ORIGIN = (
    pa.field("row_id", pa.string(), nullable=False),  # of origin and content, ids.py
    pa.field("source", pa.string(), nullable=False),  # the option of conf/source/ that read it
    pa.field("repository", pa.string()),  # package or repository
    pa.field("revision", pa.string()),  # package version or commit
    pa.field("path", pa.string(), nullable=False),  # of the file, inside the repository
    pa.field("licenses", TEXTS),  # SPDX identifiers; empty where none was found
    pa.field("file_id", pa.string()),  # of the file's bytes, ids.py; null where unreadable
    pa.field("dataset", pa.string()),  # its name, "@" and its revision; null where files were read
    pa.field("blob_id", pa.string()),  # the data set's own id of the content
)
PLACE_ID = pa.field("place_id", pa.string())  # of the file, known before it is opened
DROP_REASON = pa.field("drop_reason", pa.string())  # why the row stops; null while it is kept


def _after(above: pa.Schema, *fields: pa.Field) -> pa.Schema:
    """The columns of the stages above and these; the last one stays the last."""
    return pa.schema([*above.remove(above.get_field_index(DROP_REASON.name)), *fields, DROP_REASON])


# What supports a drop_reason, or tells which files are done: of use where it is given alone.
EVIDENCE = (
    *("place_id", "functions"),
    "type_error",
    *("near_duplicate_of", "near_duplicate_jaccard"),
    "benchmark_hits",
    *("not_novel_of", "rouge_l"),
    "cluster",
)

# A benchmark's text in a row, with the evidence.
BENCHMARK_HIT = pa.struct(
    [
        pa.field("benchmark", pa.string()),  # its name in the settings
        pa.field("item", pa.string()),  # its id there
        pa.field("part", pa.string()),  # prompt, solution or test
        pa.field("method", pa.string()),  # substring, grams or tree
        pa.field("share", pa.float64()),  # of the benchmark's text that the row holds
        pa.field("near", pa.bool_()),  # too little to drop the row
        pa.field("text", pa.string()),  # what the two share, the longest run of it
    ]
)

# One row a file, as the readers give it.
FILE = pa.schema(
    [
        *ORIGIN,
        PLACE_ID,
        pa.field("bytes", pa.int64()),  # size of the file
        pa.field("content", pa.string()),  # decoded; null where the file was dropped
        DROP_REASON,
    ]
)

# One row a function; a file without any is one row without a function.
SEED = pa.schema(
    [
        *ORIGIN,
        PLACE_ID,
        pa.field("functions", pa.int32()),  # of its file; null: the row stands for the file
        pa.field("function_index", pa.int32()),  # from 0 within its file; null: the whole file
        pa.field("seed_id", pa.string()),  # of the seed's code, ids.py
        # The function below the imports and constants of its file that it uses; the function alone
        # where it was dropped before these were looked for.
        pa.field("seed", pa.string()),
        pa.field("definition", pa.string()),  # function, method or class
        pa.field("name", pa.string()),  # of the function; of a method after its class's and a dot
        pa.field("line", pa.int32()),  # where the function begins in its file, from 1
        pa.field("last_line", pa.int32()),  # where it ends, itself included
        pa.field("signature", pa.string()),  # from `def` or `class` to the colon
        pa.field("docstring", pa.string()),  # without indentation; empty where there is none
        pa.field("type_error", pa.string()),  # the checker's first message
        pa.field("near_duplicate_of", pa.string()),  # seed_id of the kept seed that it resembles
        pa.field("near_duplicate_jaccard", pa.float32()),  # of the two
        pa.field("benchmark_hits", pa.list_(BENCHMARK_HIT)),  # the surest first
        # Probability that the docstring suffices to write the function anew; null: not asked.
        pa.field("docstring_yes", pa.float64()),
        DROP_REASON,
    ]
)

# What one hop of one row cost, and what it said.
HOP = pa.struct(
    [
        pa.field("hop", pa.string()),
        pa.field("text", pa.string()),  # unparsed, with its forced start; null where n > 1
        pa.field("finish_reason", pa.string()),  # stop, length or error; null where n > 1
        pa.field("shot_set", pa.int32()),  # which of the hop's fixed sets, from 0
        pa.field("shots", pa.int32()),  # in the prompt, after any that gave way to its length
        pa.field("model", pa.string()),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("cached_tokens", pa.int64()),  # of the prompt, served by the prefix cache
        pa.field("output_tokens", pa.int64()),  # over all samples
        pa.field("began", pa.float64()),  # when the engine was asked, seconds since the epoch
        pa.field("seconds", pa.float64()),  # from then to its last sample
    ]
)

# One of the n responses to an instruction.
SAMPLE = pa.struct(
    [
        pa.field("sample_index", pa.int32()),
        pa.field("sampling_seed", pa.int64()),
        pa.field("text", pa.string()),  # unparsed, with its forced start
        pa.field("finish_reason", pa.string()),
        pa.field("output_tokens", pa.int64()),
        pa.field("code", pa.string()),  # the solution, out of its fence; null where there is none
        pa.field("tests", pa.string()),  # the tests; null where there are none
        pa.field("drop_reason", pa.string()),  # why the sample cannot be executed
    ]
)

# `seed_id` is the row's identity from here on.
HOPS = pa.schema(
    [
        *(field for field in SEED if field.name not in (*EVIDENCE, "drop_reason")),
        pa.field("concepts", TEXTS),
        pa.field("kind", pa.string()),  # that the instruction asks for, of recipe.kinds
        pa.field("difficulty", pa.string()),  # likewise, of recipe.difficulties
        pa.field("instruction", pa.string()),
        pa.field("independent_tests", pa.string()),  # of the hop tests; null: the recipe has none
        pa.field("samples", pa.list_(SAMPLE)),
        pa.field("hops", pa.list_(HOP)),  # in the order they ran
        # Of the last hop; of the hub "id@commit"; with an adapter "id+adapter"; "standin": none.
        pa.field("model", pa.string()),
        pa.field("error", pa.string()),  # of the engine, where drop_reason says so
        DROP_REASON,
    ]
)

# What the sandbox found of one sample. A verdict that is null was never asked for.
VERDICT = pa.struct(
    [
        pa.field("sample_index", pa.int32()),
        pa.field("verdict", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("cpu_seconds", pa.float64()),
        pa.field("wall_seconds", pa.float64()),
        pa.field("peak_memory_bytes", pa.int64()),
        pa.field("asserts_total", pa.int32()),
        pa.field("asserts_run", pa.int32()),
        pa.field("asserts_failed", pa.int32()),
        pa.field("level", pa.string()),  # A to D, sandbox/
        pa.field("policy", pa.string()),  # hash of what the sandbox enforced
        pa.field("assurance", pa.string()),  # shared or split
    ]
)

# Static measures of one passing sample. Null: could not be measured.
METRICS = pa.struct(
    [
        pa.field("sample_index", pa.int32()),
        pa.field("lines", pa.int32()),  # of code that are not blank
        pa.field("imports", TEXTS),  # top-level modules that the code imports, sorted
        pa.field("pep8_violations", pa.int32()),  # pycodestyle
        pa.field("pep8_per_line", pa.float64()),
        pa.field("type_coverage", pa.float64()),  # of parameters and returns; 1 where none is
        pa.field("docstring_coverage", pa.float64()),  # of public definitions; 1 where none is
        pa.field("docstring_completeness", pa.float64()),  # of parameters, results, exceptions
        pa.field("docstring_violations", pa.int32()),  # of PEP 257, ruff
        pa.field("complexity_max", pa.int32()),  # cyclomatic, of the worst function, radon
        pa.field("complexity_mean", pa.float64()),
        pa.field("maintainability", pa.float64()),  # 0 to 100, radon
        pa.field("asserts", pa.int32()),  # in the tests
        pa.field("trivial_asserts", pa.int32()),  # of them, true whatever the solution does
        pa.field("repeated_asserts", pa.int32()),  # of them, not trivial but word for word again
        pa.field("asked", TEXTS),  # what the instruction asks for by name, as "function add"
        pa.field("unmet", TEXTS),  # of that, what the code does not have or is forbidden to have
        pa.field("gate", pa.string()),  # that refused the sample; null where none did
    ]
)

# What the model itself thinks of a passing sample. Null: the engine did not take the prompt.
JUDGEMENT = pa.struct(
    [
        pa.field("sample_index", pa.int32()),
        pa.field("yes", pa.float64()),  # probability that it does what the instruction asks
        pa.field("instruction_logprob", pa.float64()),  # natural, a token, given the code
        pa.field("gate", pa.string()),  # that refused the sample; null where none did
    ]
)

JUDGED = _after(
    HOPS,
    pa.field("verdicts", pa.list_(VERDICT)),
)

EXECUTED = _after(
    JUDGED,
    pa.field("metrics", pa.list_(METRICS)),  # of the samples that passed
)

# How strong the tests of a passing sample are. Null: could not be measured, or was not asked for.
STRENGTH = pa.struct(
    [
        pa.field("sample_index", pa.int32()),
        pa.field("assert_kinds", TEXTS),  # validation/expectations.py, sorted
        pa.field("lookup_share", pa.float64()),  # of expectations that the solution holds
        pa.field("stubs", pa.int32()),  # solutions with one function that does nothing
        # Of them, those that the tests accept, by name; null where not all could be tried, or
        # there is none and no mutant is killed either.
        pa.field("stubs_passed", TEXTS),
        pa.field("mutants", pa.int32()),  # solutions with one small change
        pa.field("mutants_killed", pa.int32()),  # of them, with another verdict than passed
        pa.field("killed_share", pa.float64()),  # null where there is no mutant
        pa.field("line_coverage", pa.float64()),  # of statements in functions; 1 where none is
        pa.field("branch_coverage", pa.float64()),  # of sides of branches; 1 where none is
        pa.field("runs", pa.int32()),  # in the sandbox; 0 for a twin of a sample before it
        pa.field("cpu_seconds", pa.float64()),  # of these runs
        pa.field("gate", pa.string()),  # that refused the sample; null where none did
    ]
)

# How far a sample agrees with the others of its instruction.
CROSS_EXECUTION = pa.struct(
    [
        pa.field("sample_index", pa.int32()),
        pa.field("cluster", pa.int32()),  # of solutions that pass the same tests; 0 is the best
        pa.field("cluster_size", pa.int32()),  # samples in it
        pa.field("tests_passed", pa.int32()),  # of the distinct tests in the matrix
        pa.field("passed_share", pa.float64()),  # of those that fit its interface and ran
        pa.field("agreement", pa.float64()),  # 0 to 1: shares of solutions and of tests, multiplied
        pa.field("gate", pa.string()),  # that refused the sample; null where none did
    ]
)

# Solutions of an instruction against its tests: one row a solution, one column a test.
AGREEMENT = pa.struct(
    [
        pa.field("solutions", pa.list_(pa.int32())),  # sample_index of each row
        pa.field("tests", pa.list_(pa.int32())),  # of each column; -1: the independent tests
        # A letter a test: passed, failed, interface (they do not fit each other), - (unknown).
        pa.field("cells", TEXTS),
    ]
)

CHECKED = _after(
    EXECUTED,
    pa.field("strength", pa.list_(STRENGTH)),  # of the samples that passed ungated
    pa.field("cross_execution", pa.list_(CROSS_EXECUTION)),  # of the samples in the matrix
    pa.field("agreement", AGREEMENT),  # null: cross-execution is off
    pa.field("judge", pa.list_(JUDGEMENT)),  # of the samples that passed ungated
)

# The final texts of one sample that passed execution and every gate.
SANITISED = pa.struct(
    [
        pa.field("sample_index", pa.int32()),
        pa.field("instruction", pa.string()),  # ends with the tests in a share of the rows
        pa.field("response", pa.string()),  # without the tests
        pa.field("drop_reason", pa.string()),  # why the sample cannot be chosen
    ]
)

# One row an instruction with the response that was chosen, or up to `choose.k` rows, each with one
# of its own: (row_id, sample_index) is the row's identity from here on.
SELECTED = _after(
    CHECKED,
    pa.field("sanitised", pa.list_(SANITISED)),
    pa.field("pass_rate", pa.float64()),  # of the samples that the sandbox did not fail on
    pa.field("difficulty_bin", pa.int32()),  # of the pass rate; 0 is the hardest
    pa.field("choice", pa.int32()),  # of the instruction's rows, from 0; the best first
    pa.field("sample_index", pa.int32()),  # of the chosen sample, as all that follows
    pa.field("final_instruction", pa.string()),  # `instruction`, perhaps with the tests
    pa.field("response", pa.string()),  # sanitised
    pa.field("code", pa.string()),  # as executed
    pa.field("tests", pa.string()),  # as executed
    pa.field("benchmark_hits", pa.list_(BENCHMARK_HIT)),  # of all these texts
    pa.field("near_duplicate_of", pa.string()),  # seed_id of the kept one that it resembles
    pa.field("near_duplicate_jaccard", pa.float32()),  # of the two
    pa.field("not_novel_of", pa.string()),  # seed_id of the first kept instruction like it
    pa.field("rouge_l", pa.float64()),  # of the two
    pa.field("cluster", pa.int32()),  # of the instruction's embedding, where diversity asks
)
