/* SPDX-License-Identifier: Apache-2.0
 * kvsteerd: command line, signals, life of the daemon.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/log.h"

static const char usage_text[] =
	"Usage: kvsteerd --config FILE\n"
	"       kvsteerd --listen ADDR:PORT --pod HOST:PORT[,OPTION…] [--pod …]\n"
	"\n"
	"Steers each LLM request to the pod that already holds its prefix.\n"
	"\n"
	"  -c, --config FILE      YAML configuration, see kvsteer.yaml(5)\n"
	"  -l, --listen ADDR:PORT accept clients here; may be repeated\n"
	"  -p, --pod HOST:PORT[,role=prefill|decode|both][,events=tcp://HOST:PORT][,replay=tcp://HOST:PORT]\n"
	"            [,metrics=HOST:PORT/PATH][,weight=N][,ranks=N]   a pod; may be repeated\n"
	"  -m, --model-path DIR   directory with the pods' tokenizer.json: what token ids of KV events stand for\n"
	"  -d, --datapath MODE    auto, tc, skmsg, relay or off\n"
	"  -w, --workers N        threads; 0: one per processor\n"
	"  -s, --control PATH     control socket\n"
	"      --set KEY=VALUE    any option of the configuration, as pools[0].scheduling.policy=p2c\n"
	"      --check            validate and exit: 0 good, 1 not\n"
	"  -V, --version\n"
	"  -h, --help             this, and every option of the configuration\n";

enum { OPT_CHECK = 256, OPT_SET };

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },   { "listen", required_argument, NULL, 'l' },
	{ "pod", required_argument, NULL, 'p' },      { "model-path", required_argument, NULL, 'm' },
	{ "datapath", required_argument, NULL, 'd' }, { "workers", required_argument, NULL, 'w' },
	{ "control", required_argument, NULL, 's' },  { "set", required_argument, NULL, OPT_SET },
	{ "check", no_argument, NULL, OPT_CHECK },    { "version", no_argument, NULL, 'V' },
	{ "help", no_argument, NULL, 'h' },	      { NULL, 0, NULL, 0 },
};

/* A configuration key for each option that is one. */
static const char *key_of(int opt)
{
	switch (opt) {
	case 'm':
		return "pools[0].model-path";
	case 'd':
		return "datapath.mode";
	case 'w':
		return "workers";
	case 's':
		return "control";
	default:
		return NULL;
	}
}

static void help(void)
{
	struct buf b = { 0 };

	fputs(usage_text, stdout);
	puts("\nConfiguration:\n");
	config_write_help(&b);
	fwrite(buf_data(&b), 1, buf_len(&b), stdout);
	buf_free(&b);
}

/* Two passes: the file first, whatever its place, then what changes it. NULL: *ret_exit is the status. */
static struct config *read_options(int argc, char **argv, bool *ret_check, int *ret_exit, struct buf *err)
{
	static const char shorts[] = "c:l:p:m:d:w:s:Vh";
	struct config *cfg = NULL;
	const char *file = NULL;
	int opt;

	*ret_exit = 2;
	while ((opt = getopt_long(argc, argv, shorts, long_options, NULL)) != -1) {
		if (opt == 'c') {
			file = optarg;
		} else if (opt == 'h' || opt == 'V') {
			if (opt == 'h')
				help();
			else
				puts("kvsteerd " KVS_VERSION);
			*ret_exit = 0;
			return NULL;
		} else if (opt == OPT_CHECK) {
			*ret_check = true;
		} else if (opt == '?') {
			fputs("kvsteerd --help lists the options\n", stderr);
			return NULL;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "kvsteerd: unexpected argument \"%s\"\n", argv[optind]);
		return NULL;
	}
	*ret_exit = 1;
	cfg = file ? config_load(file, err) : config_defaults();
	if (!cfg) {
		if (!buf_len(err))
			buf_printf(err, "%s: %s\n", file, strerror(errno));
		return NULL;
	}
	optind = 1;
	while ((opt = getopt_long(argc, argv, shorts, long_options, NULL)) != -1) {
		int r = 0;

		if (opt == 'l')
			r = config_add_listener(cfg, optarg, err);
		else if (opt == 'p')
			r = config_add_pod(cfg, optarg, err);
		else if (opt == OPT_SET)
			r = config_set_pair(cfg, optarg, err);
		else if (key_of(opt))
			r = config_set(cfg, key_of(opt), optarg, err);
		if (r)
			goto bad;
	}
	if (config_check(cfg, err))
		goto bad;
	return cfg;
bad:
	config_free(cfg);
	return NULL;
}

struct daemon {
	struct loop_fd signals;
	struct loop *loop;
	struct agent *agent;
};

static void signal_ready(struct loop_fd *f, uint32_t events)
{
	struct daemon *d = container_of(f, struct daemon, signals);
	struct signalfd_siginfo si;
	struct buf report = { 0 };

	while (read(f->fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGHUP) {
			agent_reload(d->agent, &report);
			buf_free(&report);
		} else if (si.ssi_signo == SIGINT || d->agent->draining) {
			loop_stop(d->loop);
		} else {
			agent_drain(d->agent);
		}
	}
}

static int serve(struct config *cfg)
{
	struct daemon d = { .signals = { .ready = signal_ready, .fd = -1 } };
	sigset_t set;
	int fd, r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	d.loop = loop_new();
	if (fd < 0 || !d.loop || loop_fd_add(d.loop, &d.signals, fd, EPOLLIN)) {
		log_error("the gateway cannot start", "why", strerror(errno));
		config_free(cfg);
		return 1;
	}
	d.agent = agent_start(d.loop, cfg);
	r = d.agent ? loop_run(d.loop) : -1;
	agent_free(d.agent);
	loop_fd_del(&d.signals);
	close(fd);
	loop_free(d.loop);
	if (!r)
		log_info("stopped");
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct buf err = { 0 };
	bool check = false;
	struct config *cfg;
	int status;

	cfg = read_options(argc, argv, &check, &status, &err);
	if (buf_len(&err))
		fwrite(buf_data(&err), 1, buf_len(&err), stderr);
	buf_free(&err);
	if (!cfg)
		return status;
	if (check) {
		config_free(cfg);
		return 0;
	}
	agent_set_log(cfg);
	return serve(cfg);
}
