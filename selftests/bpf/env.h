/* SPDX-License-Identifier: Apache-2.0
 * For tests that need the kernel: a mount and a network namespace of the test's own with a fresh bpffs, so that nothing
 * of the host is seen or left behind.
 */
#ifndef KVS_SELFTESTS_BPF_ENV_H
#define KVS_SELFTESTS_BPF_ENV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PINS "/sys/fs/bpf/kvsteer/v2"

static const char *env_missing; /* why the tests of this program cannot run, NULL if they can */

/* Once for a program. */
static inline void env_enter(void)
{
	static char why[128];

	if (geteuid() != 0) {
		env_missing = "needs root";
		return;
	}
	if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SCHED_CLS, NULL) != 1) {
		env_missing = "the kernel does not load TC programs for us";
		return;
	}
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700") < 0) {
		snprintf(why, sizeof(why), "no namespaces of our own with a bpffs: %s", strerror(errno));
		env_missing = why;
	}
}

#define need_env()                                                \
	do {                                                      \
		if (env_missing) {                                \
			print_message("SKIP: %s\n", env_missing); \
			skip();                                   \
		}                                                 \
	} while (0)

/* Run a shell command; the test fails with it. */
static inline void sh(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	if (system(cmd) != 0)
		fail_msg("failed: %s", cmd);
}

/* What a shell command prints. */
static inline void sh_output(char *out, size_t size, const char *cmd)
{
	FILE *f = popen(cmd, "r");
	size_t n;

	assert_non_null(f);
	n = fread(out, 1, size - 1, f);
	out[n] = '\0';
	pclose(f);
}

/* Run a program of type syscall; what it returns, or why it could not run. */
static inline int prog_call(int prog, void *ctx, size_t size)
{
	LIBBPF_OPTS(bpf_test_run_opts, o, .ctx_in = ctx, .ctx_size_in = (uint32_t)size);
	int r = bpf_prog_test_run_opts(prog, &o);

	return r < 0 ? r : (int)o.retval;
}

/* Where the datapath pins its tcx link of a device of this network namespace. */
static inline const char *link_pin(unsigned ifindex, const char *hook)
{
	static char path[160];
	struct stat st;

	assert_int_equal(stat("/proc/self/ns/net", &st), 0);
	snprintf(path, sizeof(path), PINS "/links/n%lu_if%u_%s", (unsigned long)st.st_ino, ifindex, hook);
	return path;
}

#endif
