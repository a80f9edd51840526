/* SPDX-License-Identifier: Apache-2.0
 * Counters: each declared once, in the list below, with its Prometheus name and help. One shard per thread, added up
 * when read. Per-pod numbers live in the pod.
 *
 * Threads: a shard has one writer; readers may see it a moment old (relaxed atomics).
 */
#ifndef KVS_STATS_STATS_H
#define KVS_STATS_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"

/* X(id, prometheus name without prefix, label pair or "", help). Rows of one name follow each other. */
#define STATS_COUNTERS(X)                                                                                        \
	X(CONN_ACCEPTED, "client_connections_total", "", "Client connections accepted")                          \
	X(CONN_CLOSED, "client_connections_closed_total", "", "Client connections closed")                       \
	X(REQ, "requests_total", "", "Requests whose head was read")                                             \
	X(REQ_DONE, "requests_done_total", "end=\"complete\"", "Requests by how they ended")                     \
	X(REQ_CLIENT_GONE, "requests_done_total", "end=\"client_gone\"", "")                                     \
	X(REQ_UPSTREAM_CUT, "requests_done_total", "end=\"upstream_cut\"", "")                                   \
	X(REQ_REFUSED, "requests_done_total", "end=\"refused\"", "")                                             \
	X(BAD_REQUEST, "refused_total", "reason=\"bad_request\"", "Requests refused by the gateway")             \
	X(REFUSED_HEAD, "refused_total", "reason=\"head_too_large\"", "")                                        \
	X(REFUSED_BODY, "refused_total", "reason=\"body_too_large\"", "")                                        \
	X(REFUSED_PATH, "refused_total", "reason=\"path\"", "")                                                  \
	X(REFUSED_FIELD, "refused_total", "reason=\"forbidden_field\"", "")                                      \
	X(REFUSED_MODEL, "refused_total", "reason=\"unknown_model\"", "")                                        \
	X(REFUSED_NO_POD, "refused_total", "reason=\"no_pod\"", "")                                              \
	X(REFUSED_QUEUE, "refused_total", "reason=\"queue_full\"", "")                                           \
	X(REFUSED_MEMORY, "refused_total", "reason=\"memory\"", "")                                              \
	X(RETRY_STALE, "retries_total", "reason=\"stale_connection\"", "Requests sent again, by reason")         \
	X(RETRY_CONNECT, "retries_total", "reason=\"connect\"", "")                                              \
	X(RETRY_BUSY, "retries_total", "reason=\"busy\"", "")                                                    \
	X(TIMEOUT_CONNECT, "timeouts_total", "timer=\"connect\"", "Timers that fired")                           \
	X(TIMEOUT_FIRST, "timeouts_total", "timer=\"first_byte\"", "")                                           \
	X(TIMEOUT_STREAM, "timeouts_total", "timer=\"stream_idle\"", "")                                         \
	X(TIMEOUT_CLIENT, "timeouts_total", "timer=\"client_idle\"", "")                                         \
	X(TIMEOUT_REQUEST, "timeouts_total", "timer=\"request_head\"", "")                                       \
	X(TIMEOUT_QUEUE, "timeouts_total", "timer=\"queue\"", "")                                                \
	X(UP_DIALED, "upstream_connections_total", "how=\"dialed\"", "Upstream connections by origin")           \
	X(UP_REUSED, "upstream_connections_total", "how=\"reused\"", "")                                         \
	X(UP_GARBAGE, "upstream_garbage_total", "", "Answers of pods that were not HTTP or broke their framing") \
	X(BYTES_IN, "body_bytes_total", "direction=\"request\"", "Body bytes forwarded")                         \
	X(BYTES_OUT, "body_bytes_total", "direction=\"response\"", "")                                           \
	X(MODE_PRECISE, "decisions_total", "mode=\"precise\"", "Decisions by how sure the match was")            \
	X(MODE_APPROX, "decisions_total", "mode=\"approximate\"", "")                                            \
	X(MODE_SESSION, "decisions_total", "mode=\"session\"", "")                                               \
	X(MODE_LOAD, "decisions_total", "mode=\"load\"", "")                                                     \
	X(DECIDED_EARLY, "early_decisions_total", "", "Requests forwarded before their body was whole")          \
	X(EARLY_LATE, "early_decisions_late_total", "", "Of these, a member that steers came afterwards")        \
	X(OPAQUE_ENCODING, "opaque_total", "reason=\"content_encoding\"", "Bodies not read for their prefix")    \
	X(OPAQUE_JSON, "opaque_total", "reason=\"not_json\"", "")                                                \
	X(OPAQUE_KIND, "opaque_total", "reason=\"no_prompt\"", "")                                               \
	X(OPAQUE_PARTIAL, "opaque_total", "reason=\"partial_body\"", "")                                         \
	X(OPAQUE_STATE, "opaque_total", "reason=\"engine_state\"", "")                                           \
	X(OPAQUE_SALT, "opaque_total", "reason=\"cache_salt\"", "")                                              \
	X(RENDER_OK, "chat_renders_total", "result=\"exact\"",                                                   \
	  "Chats whose text was computed from the model's template, by what came of it")                         \
	X(RENDER_MEDIA, "chat_renders_total", "result=\"media\"", "")                                            \
	X(RENDER_RAISED, "chat_renders_total", "result=\"raised\"", "")                                          \
	X(RENDER_LIMIT, "chat_renders_total", "result=\"limit\"", "")                                            \
	X(RENDER_UNSURE, "chat_renders_total", "result=\"unsure\"", "")                                          \
	X(RENDER_ENGINE, "chat_renders_total", "result=\"unknown_engine\"", "")                                  \
	X(RENDER_NONE, "chat_renders_total", "result=\"no_template\"", "")                                       \
	X(RENDER_MEMORY, "chat_renders_total", "result=\"memory\"", "")                                          \
	X(USAGE_SEEN, "usage_total", "seen=\"yes\"", "Answers by whether their usage was seen")                  \
	X(USAGE_UNSEEN, "usage_total", "seen=\"no\"", "")                                                        \
	X(CHECK_RIGHT, "prediction_checks_total", "result=\"right\"",                                            \
	  "Answers whose cached tokens were compared with the prediction, or why they were not")                 \
	X(CHECK_OVER, "prediction_checks_total", "result=\"over\"", "")                                          \
	X(CHECK_UNDER, "prediction_checks_total", "result=\"under\"", "")                                        \
	X(CHECK_UNREPORTED, "prediction_checks_total", "result=\"unreported\"", "")                              \
	X(CHECK_EVENTS, "prediction_checks_total", "result=\"no_events\"", "")                                   \
	X(CHECK_TEXT, "prediction_checks_total", "result=\"inexact_text\"", "")                                  \
	X(CHECK_REQUEST, "prediction_checks_total", "result=\"request\"", "")                                    \
	X(CHECK_POD, "prediction_checks_total", "result=\"pod\"", "")                                            \
	X(CHECK_GUESS, "prediction_checks_total", "result=\"guess\"", "")                                        \
	X(CHECK_QUEUED, "prediction_checks_total", "result=\"queued\"", "")                                      \
	X(CHECK_LOST, "prediction_checks_total", "result=\"too_many\"", "")                                      \
	X(PROMPT_TOKENS, "prompt_tokens_total", "", "Prompt tokens that engines reported")                       \
	X(DECISION_NS, "decision_nanoseconds_total", "", "Time spent on scan, hash, look-up and pick")           \
	X(EVENT_BATCHES, "kv_event_batches_total", "", "KV event batches applied")                               \
	X(EVENT_STORED, "kv_events_total", "type=\"stored\"", "KV events applied")                               \
	X(EVENT_REMOVED, "kv_events_total", "type=\"removed\"", "")                                              \
	X(EVENT_CLEARED, "kv_events_total", "type=\"cleared\"", "")                                              \
	X(EVENT_SKIPPED, "kv_events_dropped_total", "reason=\"unknown_tag\"", "KV events dropped, by reason")    \
	X(EVENT_BAD, "kv_events_dropped_total", "reason=\"bad_field\"", "")                                      \
	X(EVENT_BAD_BATCH, "kv_events_dropped_total", "reason=\"bad_batch\"", "")                                \
	X(EVENT_BAD_FRAME, "kv_events_dropped_total", "reason=\"bad_frame\"", "")                                \
	X(EVENT_DUP, "kv_events_dropped_total", "reason=\"duplicate\"", "")                                      \
	X(EVENT_ORPHAN, "kv_events_dropped_total", "reason=\"unknown_parent\"", "")                              \
	X(EVENT_GROUP, "kv_events_dropped_total", "reason=\"cache_group\"", "")                                  \
	X(EVENT_MEDIUM, "kv_events_dropped_total", "reason=\"unknown_medium\"", "")                              \
	X(EVENT_TOKEN, "kv_events_dropped_total", "reason=\"unknown_token\"", "")                                \
	X(EVENT_PARTIAL, "kv_events_dropped_total", "reason=\"partial_block\"", "")                              \
	X(EVENT_OTHER_TOKENS, "kv_event_other_tokens_total", "",                                                 \
	  "Blocks whose tokens are not what the tokenizer makes of their text")                                  \
	X(EVENT_GAP, "kv_event_gaps_total", "", "Gaps in a pod's event sequence")                                \
	X(EVENT_RESTART, "kv_event_restarts_total", "", "Engine restarts seen in the event sequence")            \
	X(EVENT_REPLAY, "kv_event_replays_total", "result=\"ok\"", "Replays asked for")                          \
	X(EVENT_REPLAY_FAIL, "kv_event_replays_total", "result=\"failed\"", "")                                  \
	X(INDEX_SAVED, "index_saves_total", "result=\"ok\"", "Writes of the kept index")                         \
	X(INDEX_SAVE_FAIL, "index_saves_total", "result=\"failed\"", "")                                         \
	X(INDEX_LOADED, "index_loads_total", "result=\"stale\"",                                                 \
	  "Caches taken in from the kept index, and of these how many did not prove themselves")                 \
	X(INDEX_STALE, "index_loads_total", "result=\"dropped\"", "")                                            \
	X(EVENT_POLL, "kv_event_polls_total", "result=\"ok\"", "Questions for KV events over HTTP")              \
	X(EVENT_POLL_FAIL, "kv_event_polls_total", "result=\"failed\"", "")                                      \
	X(SCRAPE_OK, "scrapes_total", "result=\"ok\"", "Metrics scrapes")                                        \
	X(SCRAPE_FAIL, "scrapes_total", "result=\"failed\"", "")                                                 \
	X(HEALTH_OK, "health_checks_total", "result=\"ok\"", "Active health checks")                             \
	X(HEALTH_FAIL, "health_checks_total", "result=\"failed\"", "")

enum stats_id {
#define X(id, name, label, help) STATS_##id,
	STATS_COUNTERS(X)
#undef X
		STATS_N
};

struct stats {
	_Alignas(64) _Atomic uint64_t v[STATS_N];
};

static inline void stats_add(struct stats *s, enum stats_id id, uint64_t n)
{
	_Atomic uint64_t *c = &s->v[id];

	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void stats_inc(struct stats *s, enum stats_id id)
{
	stats_add(s, id, 1);
}

uint64_t stats_sum(const struct stats *shards, unsigned n, enum stats_id id);
/* All counters in Prometheus text format 0.0.4, names prefixed "kvsteer_". 0 or -ENOMEM. */
int stats_write(const struct stats *shards, unsigned n, struct buf *out);
const char *stats_name(enum stats_id id, const char **ret_label);

/* A log2 histogram of durations. One writer. Bucket i counts values < 2^(i+10) ns (1 µs … 137 s). */
#define STATS_BUCKETS 28
struct stats_hist {
	_Atomic uint64_t bucket[STATS_BUCKETS];
	_Atomic uint64_t sum_ns, count;
};
void stats_hist_add(struct stats_hist *h, uint64_t ns);
/* Cumulative buckets, _sum and _count of <n> shards, <stride> bytes apart; <name> gets the prefix "kvsteer_". 0 or
 * -ENOMEM. */
int stats_hist_write(const struct stats_hist *first, unsigned n, size_t stride, const char *name, const char *help,
		     struct buf *out);

#endif
