package plan

// tally counts the endpoints of one priority by health.
type tally struct {
	healthy, degraded, total uint64
}

func (t tally) plus(o tally) tally {
	return tally{healthy: t.healthy + o.healthy, degraded: t.degraded + o.degraded, total: t.total + o.total}
}

// load is the load of one priority, in percent of all requests.
type load struct {
	healthy, degraded uint64
	// panic means that the load goes to all endpoints of the priority, whatever their health.
	panic bool
}

// availability returns which part of a priority counts as available, in percent, overprovisioned and capped at 100.
func availability(factor, available, total uint64) uint64 {
	if total == 0 {
		return 0
	}
	return min(100, factor*available/total)
}

// loads turns the health of each priority into its load, in integers with divisions that round down, as Envoy does. The
// loads add up to 100, or to 0 if no endpoint can get a request.
func (p *Policy) loads(priorities []tally) []load {
	out := make([]load, len(priorities))
	healthy, degraded := make([]uint64, len(priorities)), make([]uint64, len(priorities))
	available := uint64(0)
	for i, t := range priorities {
		healthy[i] = availability(p.factor, t.healthy, t.total)
		degraded[i] = availability(p.factor, t.degraded, t.total)
		available += healthy[i] + degraded[i]
	}
	available = min(100, available)

	if available > 0 {
		left := uint64(100)
		for i := range out {
			out[i].healthy = min(left, healthy[i]*100/available)
			left -= out[i].healthy
		}
		for i := range out {
			out[i].degraded = min(left, degraded[i]*100/available)
			left -= out[i].degraded
		}
		if i := firstPositive(healthy); i >= 0 {
			out[i].healthy += left
		} else {
			out[firstPositive(degraded)].degraded += left
		}
	}
	if available == 100 {
		return out
	}
	all := p.panicBelow > 0
	for i, t := range priorities {
		out[i].panic = 100*(t.healthy+t.degraded) < p.panicBelow*t.total
		all = all && out[i].panic
	}
	switch {
	case all:
		inTotalPanic(priorities, out)
	case available == 0:
		lastResort(priorities, out)
	}
	return out
}

// lastResort applies if some priority is not in panic, because panic is off or its threshold is 1 percent, and so few
// endpoints are available that every percentage is rounded down to 0: one in two hundred is still better than none.
func lastResort(priorities []tally, out []load) {
	for i, t := range priorities {
		if t.healthy > 0 && !out[i].panic {
			out[i].healthy = 100
			return
		}
	}
	for i, t := range priorities {
		if t.degraded > 0 && !out[i].panic {
			out[i].degraded = 100
			return
		}
	}
}

// inTotalPanic gives each priority its share of all endpoints, whatever their health.
func inTotalPanic(priorities []tally, out []load) {
	var sum tally
	for _, t := range priorities {
		sum = sum.plus(t)
	}
	if sum.total == 0 {
		return
	}
	left, first := uint64(100), -1
	for i, t := range priorities {
		if first < 0 && t.total > 0 {
			first = i
		}
		out[i] = load{healthy: 100 * t.total / sum.total, panic: true}
		left -= out[i].healthy
	}
	out[first].healthy += left
}

func firstPositive(values []uint64) int {
	for i, v := range values {
		if v > 0 {
			return i
		}
	}
	return -1
}
