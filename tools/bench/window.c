/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/time.h"
#include "bench.h"

int watch_pids(const char *list, int *pids, int *n)
{
	char *end;
	long pid;

	*n = 0;
	while (*list) {
		pid = strtol(list, &end, 10);
		if (pid <= 0 || (*end && *end != ',') || *n == BENCH_PIDS)
			return -EINVAL;
		pids[(*n)++] = (int)pid;
		list = *end ? end + 1 : end;
	}
	return 0;
}

int watch_soak(struct watch *w, const char *path)
{
	size_t size = sizeof(struct soak_cpu) * BENCH_CPUS;
	void *p;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return -errno;
	w->soak = p;
	return 0;
}

/* The number behind <key> in a file of lines "key: number". */
static uint64_t number_in(const char *path, const char *key)
{
	uint64_t n = 0;
	char line[256];
	FILE *f = fopen(path, "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			n = strtoull(line + strlen(key), NULL, 10);
	fclose(f);
	return n;
}

/* schedstat's first number is exact; utime and stime are sampled at the tick. A wake-up follows a voluntary switch. */
static uint64_t cpu_of(int pid, uint64_t *wakes)
{
	char path[96];
	uint64_t sum = 0, ns;
	struct dirent *e;
	FILE *f;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	if (!d)
		return 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", pid, e->d_name);
		if (wakes)
			*wakes += number_in(path, "voluntary_ctxt_switches:");
		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", pid, e->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%" SCNu64, &ns) == 1)
			sum += ns;
		fclose(f);
	}
	closedir(d);
	return sum;
}

static uint64_t rss_of(int pid, const char *key)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	return number_in(path, key) * 1024;
}

/* Where the cpuacct controller is mounted, its root counts exactly; else what the tick samples. */
static uint64_t busy_ns(bool *ret_exact)
{
	uint64_t user = 0, nice = 0, sys = 0, ns = 0;
	FILE *f = fopen("/sys/fs/cgroup/cpuacct/cpuacct.usage", "re");

	if (f) {
		*ret_exact = fscanf(f, "%" SCNu64, &ns) == 1;
		fclose(f);
		if (*ret_exact)
			return ns;
	}
	*ret_exact = false;
	f = fopen("/proc/stat", "re");
	if (!f)
		return 0;
	if (fscanf(f, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64, &user, &nice, &sys) != 3)
		user = 0;
	fclose(f);
	return (user + nice + sys) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t taken_ns(const struct soak_cpu *soak)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t sum = 0, last, now = time_mono();

	for (long i = 0; soak && i < n && i < BENCH_CPUS; i++) {
		last = __atomic_load_n(&soak[i].last, __ATOMIC_ACQUIRE);
		sum += __atomic_load_n(&soak[i].taken, __ATOMIC_RELAXED);
		if (last && now > last)
			sum += now - last;
	}
	return sum;
}

void watch_snap(const struct watch *w, struct snap *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->t = time_mono();
	for (int i = 0; i < w->n_gw; i++)
		ret->gw += cpu_of(w->gw[i], &ret->wakes);
	ret->taken = taken_ns(w->soak);
	ret->busy = busy_ns(&ret->busy_exact);
	ret->own = ret->gw + cpu_of(getpid(), NULL);
	for (int i = 0; i < w->n_own; i++)
		ret->own += cpu_of(w->own[i], NULL);
	for (int i = 0; i < w->n_gw; i++)
		ret->rss += rss_of(w->gw[i], w->n_gw > 1 ? "Pss:" : "Rss:");
}
