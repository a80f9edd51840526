/* SPDX-License-Identifier: Apache-2.0
 * How right the gateway is: cached tokens that it predicted against those that the engine reported, of each pod, model
 * and kind of request.
 *
 *   worker    truth_put: an answer whose report means what the prediction means
 *   control   truth_take, truth_add: into the window of its pod, model and kind
 *             truth_judge: do they agree? When they part, which of the things that can be wrong is the likely one?
 *
 * An answer is *off* when the two differ by more than a block; answers of which neither says anything do not count. A
 * row is doubted when more than <drift> of the last TRUTH_WINDOW are off, of at least <samples>; it is trusted again
 * when of the last <samples> since then not more than half of that share are.
 *
 * Threads: a ring has one writer and one reader; all else belongs to the control thread.
 * Memory: a ring is 40 KB, a row 1.3 KB; of TRUTH_ROWS_MAX rows the one that was fed longest ago goes for a new one.
 */
#ifndef KVS_TRUTH_TRUTH_H
#define KVS_TRUTH_TRUTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define TRUTH_RING     1024 /* answers of a worker between two looks; what does not fit is not compared */
#define TRUTH_WINDOW   64
#define TRUTH_ROWS_MAX 4096
#define TRUTH_NAME     128

enum truth_kind { TRUTH_COMPLETIONS, TRUTH_CHATS, TRUTH_KINDS };

struct truth_sample {
	uint64_t at_ns;
	uint64_t model; /* truth_model of its namespace's name */
	uint32_t pod;	/* its id */
	uint32_t predicted, reported;
	uint32_t prompt; /* tokens of it */
	uint32_t block;	 /* tokens of a block, at least 1 */
	uint32_t kind;	 /* enum truth_kind */
};

struct truth_ring {
	_Alignas(64) _Atomic uint32_t put; /* counted up by the writer */
	_Alignas(64) _Atomic uint32_t taken;
	struct truth_sample s[TRUTH_RING];
};

uint64_t truth_model(const char *name);
bool truth_put(struct truth_ring *r, const struct truth_sample *s);	     /* false: it is full */
bool truth_take(struct truth_ring *r, unsigned n, struct truth_sample *ret); /* the oldest of <n> rings; false: none */

/* What is likely wrong. The last two are not mistakes: predictions are scaled, nobody is alarmed. */
enum truth_cause {
	TRUTH_FINE,
	TRUTH_TEMPLATE,	  /* chats have another text than the model's template gives */
	TRUTH_ENGINE,	  /* the engine changes chats in a way that is not known here */
	TRUTH_TOKENIZER,  /* ids of the events stand for other text */
	TRUTH_BLOCK_SIZE, /* tokens are counted in other blocks */
	TRUTH_SALT,	  /* nothing is hit: prefix caching is off, or prompts are salted on their way */
	TRUTH_EVENTS,	  /* what was stored or removed is not told */
	TRUTH_HYBRID,	  /* several cache groups: what one has stored need not be usable */
	TRUTH_GENERATED,  /* without an encoder generated text cannot be judged */
	TRUTH_CAUSES
};
const char *truth_cause_name(enum truth_cause c);  /* a word, as the metric's label has it */
const char *truth_cause_text(enum truth_cause c);  /* what is likely wrong */
const char *truth_cause_fix(enum truth_cause c);   /* what to do about it */
bool truth_cause_quiet(enum truth_cause c);	   /* TRUTH_FINE, TRUTH_HYBRID, TRUTH_GENERATED */
const char *truth_kind_name(enum truth_kind kind); /* "completions", "chats" */

struct truth_view {
	uint32_t n, off;	      /* answers in the window: all, off */
	uint64_t predicted, reported; /* their tokens */
	uint64_t compared;	      /* answers since the row began */
	bool doubted;
	enum truth_cause cause;
	float scale; /* what a predicted token has lately been worth, 0 … 1; 1 while it is trusted */
};

struct truth_window {
	struct {
		uint32_t predicted, reported;
	} v[TRUTH_WINDOW];
	uint32_t n; /* since it was emptied */
	uint64_t compared;
	bool fed; /* and not judged since */
	bool doubted;
	enum truth_cause cause;
	float scale;
	struct { /* the answers that last told the cause */
		uint32_t n, off;
		uint64_t predicted, reported;
	} fell;
};

struct truth_row {
	struct list link, hash;
	uint32_t pod, block;
	uint64_t model, fed_ns, told;
	/* Lately: blocks that were computed for prompts, and blocks that the events have told. */
	double computed_new, computed_sum, told_sum;
	char name[TRUTH_NAME];
	struct truth_window w[TRUTH_KINDS];
};

struct truth;

struct truth *truth_new(void); /* NULL and errno */
void truth_free(struct truth *t);

struct truth_row *truth_find(struct truth *t, uint32_t pod, uint64_t model);
/* <name> is that of <model>. NULL: no memory. */
struct truth_row *truth_add(struct truth *t, uint32_t pod, uint64_t model, const char *name);
void truth_feed(struct truth_row *row, const struct truth_sample *s, uint64_t now_ns);
void truth_forget(struct truth *t, uint32_t pod); /* it is gone */
struct list *truth_rows(struct truth *t);	  /* all, by link */

struct truth_rule {
	double drift;	  /* 0 … 1 */
	uint32_t samples; /* up to TRUTH_WINDOW */
};

/* What else is known of the pod. */
struct truth_facts {
	uint32_t block, event_block; /* tokens of a block by its metrics and by its events; 0: not known */
	uint64_t told;		     /* blocks that its events have told, ever */
	bool replay;		     /* what was told before can be asked for */
	bool hybrid;		     /* its events tell of several cache groups */
	bool no_encoder;	     /* of its model */
};

enum truth_verdict { TRUTH_SAME, TRUTH_FELL, TRUTH_ROSE, TRUTH_OTHER_CAUSE, TRUTH_OTHER_SCALE };
/* Judge a window, if it was fed since. After truth_told. */
enum truth_verdict truth_judge(struct truth_row *row, enum truth_kind kind, const struct truth_rule *rule,
			       const struct truth_facts *facts);
void truth_told(struct truth_row *row, uint64_t told); /* blocks that the pod's events have told so far */
void truth_look(const struct truth_row *row, enum truth_kind kind, struct truth_view *ret);

#endif
