/* SPDX-License-Identifier: Apache-2.0
 * The daemon's wiring: which module's output is which other's input. No logic of its own beyond that.
 *
 *   discovery ──set──► endpoints ──on_add──► holders, scrape, events
 *   scrape ──changed──► endpoints_publish; restarts and sleep ──► events_invalidate
 *   ctl, admin ──► the tables of commands.c (cmd_*.c: an object each) and pages.c
 *
 * Threads: all of it belongs to the control thread.
 */
#ifndef KVS_AGENT_AGENT_H
#define KVS_AGENT_AGENT_H

#include "ctl/ctl.h"
#include "datapath/datapath.h"
#include "discovery/discovery.h"
#include "proxy/proxy.h"
#include "scrape/scrape.h"

struct agent {
	struct config *cfg;
	struct loop *loop;
	struct qsbr qsbr;
	unsigned workers, reader; /* the control thread's qsbr id */
	unsigned nshards;	  /* workers, then control, then events */
	struct stats *stats;
	struct endpoints *endpoints;
	struct kvindex *index;
	struct index_file *kept; /* until the events thread has it */
	struct events *events;
	struct scrape *scrape;
	struct discovery *discovery;
	struct datapath *datapath;
	char datapath_why[DATAPATH_WHY_MAX];
	struct truth *truth;
	struct proxy_shared shared;
	struct proxy *proxy;
	struct ctl *ctl;
	struct admin *admin;
	uint64_t holders[INDEX_HOLDERS / 64]; /* taken */
	double process_start[INDEX_HOLDERS];  /* by a pod's first holder: what its last sample said */
	struct loop_work publish;
	struct loop_timer tick, drain, tail;
	bool ready, draining, trimmed;
	uint64_t trim_reqs;
	uint64_t started_ns, drain_until;
	struct list tails; /* connections that follow decisions */
	uint64_t tail_serial;
	char **problems; /* one per pool, of its discovery; NULL: none */
};

/* Build everything of <cfg> (given away) and start serving. NULL and errno; the reason has been logged. */
struct agent *agent_start(struct loop *l, struct config *cfg);
void agent_drain(struct agent *a); /* stops the loop when the last answer is out, or drain-timeout is over */
int agent_reload(struct agent *a, struct buf *report); /* reread the configuration; what can change does */
void agent_free(struct agent *a);

void agent_tune_pool(struct proxy_pool *pp); /* policy and tuning as its configuration says */
void agent_set_log(const struct config *cfg);
const char *agent_base_name(const struct agent *a, const struct pod *p);

/* meter.c: the truth meter */
void meter_look(struct agent *a); /* once a second */
void meter_forget(struct agent *a, const struct pod *p);
void meter_respecified(struct agent *a, struct pod *p); /* its events are followed anew */
/* All that was compared of <p>. */
void meter_each(struct agent *a, const struct pod *p,
		void (*each)(void *arg, const struct truth_row *row, enum truth_kind kind, const struct truth_view *v),
		void *arg);

/* commands.c, pages.c, cmd_decision.c */
extern const struct ctl_cmd agent_commands[];
extern const unsigned agent_ncommands;
extern const struct admin_page agent_pages[];
extern const unsigned agent_npages;
void agent_tails_init(struct agent *a);

/* sd_notify(3) without the library: to $NOTIFY_SOCKET, if it is set. */
void notify_systemd(const char *state);

#endif
