/* SPDX-License-Identifier: Apache-2.0
 * Rereading the configuration. What a running gateway can take over is taken over: the static pods, and all options
 * that the table of config/ does not keep for a restart. Of those the report says so; a restart breaks no stream: a new
 * kvsteerd listens beside the old one, and the old one drains.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "base/log.h"

struct report {
	struct buf *out;
};

static void changed(void *arg, const char *key, bool restart)
{
	struct report *r = arg;

	buf_printf(r->out, "%s%s\n", key, restart ? " (waits for a restart)" : "");
}

static int reset_static(struct agent *a, const struct config *next)
{
	for (unsigned i = 0; i < a->cfg->npools && i < next->npools; i++) {
		const struct config_pool *cp = &next->pools[i];
		struct pod_spec *specs;
		unsigned n = 0;

		if (cp->discovery != DISC_STATIC || a->cfg->pools[i].discovery != DISC_STATIC)
			continue;
		specs = calloc(cp->npods ? cp->npods : 1, sizeof(*specs));
		if (!specs)
			return -ENOMEM;
		for (unsigned k = 0; k < cp->npods; k++) {
			char err[256];

			if (discovery_spec(&cp->pods[k], &specs[n], err, sizeof(err)) == 0)
				n++;
			else
				log_warn("a pod of the new configuration cannot be used", "why", err);
		}
		endpoints_set(a->endpoints, i, "static", specs, n);
		free(specs);
	}
	return 0;
}

static enum log_level level_of(const char *s)
{
	return strcmp(s, "debug") == 0	 ? LOG_DEBUG
	       : strcmp(s, "warn") == 0	 ? LOG_WARN
	       : strcmp(s, "error") == 0 ? LOG_ERROR
					 : LOG_INFO;
}

void agent_set_log(const struct config *cfg)
{
	log_setup(level_of(cfg->log_level), strcmp(cfg->log_format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
}

static void take_over(struct agent *a, struct config *next)
{
	bool mode = strcmp(a->cfg->datapath_mode, next->datapath_mode) != 0;

	config_take(a->cfg, next);
	agent_set_log(a->cfg);
	for (unsigned i = 0; i < a->cfg->npools; i++)
		agent_tune_pool(&a->shared.pools[i]);
	if (mode && datapath_set_mode(a->datapath, a->cfg->datapath_mode))
		log_warn("the datapath cannot be switched", "mode", a->cfg->datapath_mode, "why",
			 datapath_why(a->datapath));
}

int agent_reload(struct agent *a, struct buf *report)
{
	struct report r = { report };
	struct config *next;
	int e;

	if (!a->cfg->file) {
		buf_puts(report, "there is no configuration file: kvsteerd was started with --listen and --pod");
		log_warn("cannot reload", "why", "no configuration file");
		return -EINVAL;
	}
	next = config_load(a->cfg->file, report);
	if (!next || config_check(next, report)) {
		buf_put(report, "", 1);
		log_error("the new configuration is not taken", "why", buf_data(report));
		report->len--;
		config_free(next);
		return -EINVAL;
	}
	config_diff(a->cfg, next, changed, &r);
	e = reset_static(a, next);
	take_over(a, next);
	loop_defer(a->loop, &a->publish);
	config_free(next);
	log_info("reloaded", "file", a->cfg->file);
	return e;
}
