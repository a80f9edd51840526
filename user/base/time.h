/* SPDX-License-Identifier: Apache-2.0
 * Two clocks: monotonic for durations and deadlines, wall for what people read. All in nanoseconds.
 */
#ifndef KVS_BASE_TIME_H
#define KVS_BASE_TIME_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

static inline uint64_t time_ns_of(clockid_t clk)
{
	struct timespec ts;

	clock_gettime(clk, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static inline uint64_t time_mono(void)
{
	return time_ns_of(CLOCK_MONOTONIC);
}

static inline uint64_t time_wall(void)
{
	return time_ns_of(CLOCK_REALTIME);
}

#endif
