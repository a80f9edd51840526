/* SPDX-License-Identifier: Apache-2.0
 * Softirqs, interrupts and BPF programs are charged to nobody, or to whoever happens to run. A thread of the idle class
 * per CPU that looks at the clock without pause sees them all: a gap between two looks is time that something else
 * took. What a look costs by itself stays below the limit, so with nothing running next to nothing is counted.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/time.h"
#include "bench.h"

#define GAP_NS 700

static struct soak_cpu *cpus;

static void *spin(void *arg)
{
	int cpu = (int)(intptr_t)arg;
	struct sched_param prio = { 0 };
	uint64_t last, now;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	pthread_setschedparam(pthread_self(), SCHED_IDLE, &prio);
	for (last = time_mono();; last = now) {
		now = time_mono();
		if (now - last > GAP_NS)
			__atomic_store_n(&cpus[cpu].taken, cpus[cpu].taken + now - last, __ATOMIC_RELAXED);
		__atomic_store_n(&cpus[cpu].last, now, __ATOMIC_RELEASE);
	}
	return NULL;
}

int soak_main(int argc, char **argv)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t t;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: kvbench soak FILE\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*cpus) * BENCH_CPUS)) {
		fprintf(stderr, "kvbench: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	cpus = mmap(NULL, sizeof(*cpus) * BENCH_CPUS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (cpus == MAP_FAILED)
		return 1;
	for (int i = 0; i < n && i < BENCH_CPUS; i++) {
		if (pthread_create(&t, NULL, spin, (void *)(intptr_t)i))
			return 1;
	}
	for (;;)
		pause();
}
