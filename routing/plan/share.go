package plan

import (
	"cmp"
	"math/bits"
	"slices"
)

// effective returns the weight of a locality after what is unavailable in it has been subtracted.
func effective(factor, weight, available, total uint64) uint64 {
	return weight * availability(factor, available, total)
}

// percentages turns weights into whole percents that add up to 100, or are all 0 if the weights are. Each share is
// rounded down; the remainder goes, one each, to those that lost most by rounding, the first among equals.
func percentages(weights []uint64) []uint64 {
	out := make([]uint64, len(weights))
	sum := uint64(0)
	for _, w := range weights {
		sum += w
	}
	if sum == 0 {
		return out
	}
	lost := make([]uint64, len(weights))
	order := make([]int, len(weights))
	left := uint64(100)
	for i, w := range weights {
		hi, lo := bits.Mul64(100, w)
		out[i], lost[i] = bits.Div64(hi, lo, sum)
		left -= out[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(lost[b], lost[a]) })
	for _, i := range order[:left] {
		out[i]++
	}
	return out
}

// WholePart is the whole in parts of which shares of localities are given. A hundredth of a percent is more than one
// part.
const WholePart = 1 << 14

// parts turns weights into parts of WholePart, each rounded down, but to at least 1.
func parts(weights []uint64) []uint64 {
	out := make([]uint64, len(weights))
	sum := uint64(0)
	for _, w := range weights {
		sum += w
	}
	for i, w := range weights {
		if w > 0 {
			hi, lo := bits.Mul64(WholePart, w)
			part, _ := bits.Div64(hi, lo, sum)
			out[i] = max(1, part)
		}
	}
	return out
}
