/* SPDX-License-Identifier: Apache-2.0
 *
 * An answer's cached tokens against what the pod's events said when it was chosen, only where both mean the same: its
 * text was exact, its events flowed, one prompt was asked for and all of it, one cache computed it. What was merely
 * guessed is no prediction. The result goes to the control thread (truth/), by a ring that never waits.
 */
#include "proxy/proxy_int.h"

/* Less was known than there was. Not for want of knowledge, if events were still on their way: a guess stood for them,
 * or would have, had the request not waited in the pod for longer than guesses live. */
static bool is_explained(const struct request *r, const struct check *k, enum stats_id *ret)
{
	if (k->guessed && !k->doubted)
		*ret = STATS_CHECK_GUESS;
	else if (k->queued && r->first_ns > r->dispatch_ns + EVENTS_GUESS_LIFE)
		*ret = STATS_CHECK_QUEUED;
	else
		return false;
	return true;
}

void check_answer(struct request *r, bool known, uint32_t reported, uint32_t prompt)
{
	const struct leg *leg = &r->legs[r->leg];
	const struct check *k = &leg->check;
	struct worker *w = r->c->w;
	struct truth_sample s = { .at_ns = loop_now(w->loop),
				  .model = truth_model(r->d->base),
				  .pod = leg->pod->id,
				  .predicted = k->sure,
				  .reported = reported,
				  .prompt = prompt,
				  .block = k->block,
				  .kind = api_is_chat(r->kind) ? TRUTH_CHATS : TRUTH_COMPLETIONS };
	enum stats_id result = STATS_CHECK_RIGHT;
	bool under = known && reported > k->sure + k->block;

	if (k->why_not != STATS_N)
		result = k->why_not;
	else if (!known)
		result = STATS_CHECK_UNREPORTED;
	else if (!under || !is_explained(r, k, &result))
		result = !truth_put(&w->sh->truth[w->id], &s)	   ? STATS_CHECK_LOST
			 : under				   ? STATS_CHECK_UNDER
			 : k->sure > (uint64_t)reported + k->block ? STATS_CHECK_OVER
								   : STATS_CHECK_RIGHT;
	stats_inc(w->st, result);
}
