// Package preserve decides which instances stay after their leases were lost. It is pure: [Threshold.Keeps] takes what
// is stored and returns the decision.
//
// A lease that runs out alone belongs to a process that crashed, and its instances go. Leases that run out together are
// the sign of holders that were cut off, by a network or by this cluster, while their instances serve on: removing
// these would empty the service. So if more than a part of the leased instances of a service would go within a minute,
// they stay until an operator or their holder decides. Each service is judged by its own instances.
package preserve

import "time"

// Window is the time within which lost leases count as lost together. A lease is judged when it has been lost for at
// least as long, so that all of them are known.
const Window = time.Minute

// Threshold is the part of the leased instances of a service, in percent, above which they stay. At [Off] none do.
type Threshold uint32

// Values of [Threshold].
const (
	Default Threshold = 15
	Off     Threshold = 100
)

// Loss is a lease that has run out, as one service sees it.
type Loss struct {
	// Instances is the number of instances of the service under the lease, without those that yield to another
	// registration at their address.
	Instances int
	// Expired is when the lease ran out.
	Expired time.Time
	// Kept means that the instances are kept already.
	Kept bool
}

// Keeps reports whether the instances of a lost lease stay. leased is the number of all leased instances of the
// service, and losses are its lost leases, among them the one that is judged. What is kept already counts as lost at
// any time. A single instance never stays: that is a crash.
func (t Threshold) Keeps(lost Loss, losses []Loss, leased int) bool {
	if lost.Instances == 0 || lost.Kept {
		return lost.Kept && lost.Instances > 0
	}
	going := 0
	for _, l := range losses {
		if l.Kept || l.Expired.Sub(lost.Expired).Abs() <= Window {
			going += l.Instances
		}
	}
	return going > 1 && going*100 > int(t)*leased
}
