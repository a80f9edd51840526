/* SPDX-License-Identifier: Apache-2.0
 *
 * Which of the things that can be wrong is the likely one, told by what the answers that are off have in common.
 *
 * A wrong text (template, tokenizer) is not found in what the events tell: less is predicted than reported, mostly
 * nothing. A hit that is not there (a cache that was emptied unseen, caching switched off, another count) is the other
 * way round. Whether completions or chats are right tells the text's making from the ids' meaning.
 */
#include "truth/truth_int.h"

static const struct {
	const char *name, *text, *fix;
} causes[TRUTH_CAUSES] = {
	[TRUTH_FINE] = { "none", "predictions and reports agree", "" },
	[TRUTH_TEMPLATE] = { "template",
			     "the pod makes another text of chats than the chat template that kvsteer knows",
			     "compare with kvsteer doctor; give the engine's --chat-template as the pool's "
			     "chat-template" },
	[TRUTH_ENGINE] = { "engine_rule",
			   "the engine changes chats before its template, in a way that kvsteer does not know",
			   "compare with kvsteer doctor; the engine's version may be newer than kvsteer's rules" },
	[TRUTH_TOKENIZER] = { "tokenizer", "the pod's token ids stand for other text than in model-path",
			      "compare with kvsteer doctor; set model-path to the files of the deployed revision" },
	[TRUTH_BLOCK_SIZE] = { "block_size", "the pod counts cached tokens in other blocks than its events tell",
			       "compare block_size of kvsteer pod show with the engine's --block-size (--page-size)" },
	[TRUTH_SALT] = { "salt", "the pod reports no cached token of what it has announced",
			 "is prefix caching switched off, or does something between kvsteer and the engine add a "
			 "cache_salt?" },
	[TRUTH_EVENTS] = { "events", "the pod's KV events do not tell all of what is stored or removed",
			   "see kvsteer doctor; give the engine a replay_endpoint and the pod a replay, and no other "
			   "cache behind it" },
	[TRUTH_HYBRID] = { "hybrid", "the model has several cache groups, so what is stored need not be usable",
			   "nothing: predictions are scaled by what the pod reports" },
	[TRUTH_GENERATED] = { "generated", "generated text cannot be judged without an encoder for this tokenizer",
			      "nothing: predictions are scaled by what the pod reports" },
};

const char *truth_cause_name(enum truth_cause c)
{
	return causes[c].name;
}

const char *truth_cause_text(enum truth_cause c)
{
	return causes[c].text;
}

const char *truth_cause_fix(enum truth_cause c)
{
	return causes[c].fix;
}

bool truth_cause_quiet(enum truth_cause c)
{
	return c == TRUTH_FINE || c == TRUTH_HYBRID || c == TRUTH_GENERATED;
}

const char *truth_kind_name(enum truth_kind kind)
{
	return kind == TRUTH_CHATS ? "chats" : "completions";
}

/* Nearly all of <of>. */
static bool most(uint32_t n, uint32_t of)
{
	return of && n * 10 >= of * 9;
}

static enum truth_cause over_predicted(const struct pattern *p, bool chat, bool other_right,
				       const struct truth_facts *facts)
{
	if (facts->hybrid)
		return TRUTH_HYBRID;
	if (most(p->zero, p->over))
		return TRUTH_SALT;
	if (most(p->alike, p->over))
		return TRUTH_BLOCK_SIZE;
	if (facts->no_encoder)
		return TRUTH_GENERATED;
	return chat && other_right ? TRUTH_ENGINE : TRUTH_EVENTS;
}

/* Of a pod that was running before us and cannot repeat itself, most is not known at first. */
static bool joined_late(const struct truth_window *w, const struct truth_facts *facts)
{
	return !facts->replay && w->compared < 4 * TRUTH_WINDOW;
}

static enum truth_cause under_predicted(const struct truth_row *row, const struct pattern *p,
					const struct pattern *other, bool chat, bool other_right,
					const struct truth_facts *facts)
{
	bool other_wrong = other->under * 2 > other->n || row->w[chat ? TRUTH_COMPLETIONS : TRUTH_CHATS].doubted;

	if (row->told_sum * 3 < row->computed_sum * 2)
		return TRUTH_EVENTS;
	if (p->miss * 4 >= p->under * 3 && !p->hits) {
		if (chat && !other_wrong && (other_right || !joined_late(&row->w[TRUTH_CHATS], facts)))
			return TRUTH_TEMPLATE;
		return joined_late(&row->w[chat ? TRUTH_CHATS : TRUTH_COMPLETIONS], facts) ? TRUTH_EVENTS
											   : TRUTH_TOKENIZER;
	}
	if (most(p->alike, p->under))
		return TRUTH_BLOCK_SIZE;
	return chat && other_right ? TRUTH_ENGINE : TRUTH_EVENTS;
}

enum truth_cause cause_of(const struct truth_row *row, enum truth_kind kind, const struct truth_rule *rule,
			  const struct truth_facts *facts)
{
	const struct truth_window *w = &row->w[kind];
	struct pattern p, other;
	bool chat = kind == TRUTH_CHATS, other_right;

	pattern_of(w, row->block, TRUTH_WINDOW, &p);
	pattern_of(&row->w[chat ? TRUTH_COMPLETIONS : TRUTH_CHATS], row->block, TRUTH_WINDOW, &other);
	other_right = other.n >= rule->samples / 2 && (other.over + other.under) * 4 <= other.n;
	if (facts->block && facts->event_block && facts->block != facts->event_block)
		return TRUTH_BLOCK_SIZE;
	return p.over >= p.under ? over_predicted(&p, chat, other_right, facts)
				 : under_predicted(row, &p, &other, chat, other_right, facts);
}
