package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Zones of callers and instances: the caller in eu/a has a near instance in eu/b, and a far one in us/a.
const (
	callerZone = "a"
	euZone     = "b"
	usZone     = "a"
)

// story is the state that the steps share.
type story struct {
	*world
	// endpoints are the members from which the other region fetches while there is no stream, by region.
	endpoints map[*region]*member

	euCaller, usCaller   *workload
	euService, usService *service
	traffic              *traffic
	killed               *member
	// written is the revision of what was written while the killed member was down.
	written uint64
}

func (s *story) steps() []step {
	return []step{
		{"Two clusters form", s.form},
		{"They federate by one token", s.federate},
		{"Workloads get identities, and a service opens in both regions", s.populate},
		{"A caller in eu is sent to the near instance", s.callNear},
		{"The near one stops, and the call crosses to us", s.cross},
		{"The near one is back, and the hint with it", s.comeBack},
		{"us rotates its roots while both regions call each other", s.rotate},
		{"The leader of us is killed, and bundles are still served", s.killLeader},
		{"The killed member returns from its own disk", s.restart},
	}
}

// apart are the steps of a demo whose regions are left for the user to federate.
func (s *story) apart() []step {
	return []step{{"Two clusters form", s.form}}
}

func (s *story) form(ctx context.Context) (string, error) {
	forming, formCtx := errgroup.WithContext(ctx)
	for _, r := range s.regions() {
		forming.Go(func() error { return r.form(formCtx) })
	}
	if err := forming.Wait(); err != nil {
		return "", err
	}
	var leaders []string
	s.endpoints = make(map[*region]*member)
	for _, r := range s.regions() {
		m, err := r.leader(ctx)
		if err != nil {
			return "", err
		}
		// A follower, so that the later kill of the leader does not remove the only URL.
		s.endpoints[r] = r.others(m)[0]
		leaders = append(leaders, fmt.Sprintf("%s, led by %s", r.domain.Name(), m.id))
	}
	return fmt.Sprintf(
		"three voters each, two of which joined by one-time tokens: %s", strings.Join(leaders, "; "),
	), nil
}

func (s *story) populate(ctx context.Context) (string, error) {
	euAgent, err := s.startAgent(ctx, s.eu)
	if err != nil {
		return "", err
	}
	usAgent, err := s.startAgent(ctx, s.us)
	if err != nil {
		return "", err
	}
	var eu, us *workload
	issuing, issueCtx := errgroup.WithContext(ctx)
	for _, w := range []struct {
		into **workload
		from *agent
		path string
	}{
		{&s.euCaller, euAgent, "/web"}, {&s.usCaller, usAgent, "/web"},
		{&eu, euAgent, "/shop"}, {&us, usAgent, "/shop"},
	} {
		issuing.Go(func() (err error) {
			*w.into, err = s.newWorkload(issueCtx, w.from, w.path)
			return err
		})
	}
	if err := issuing.Wait(); err != nil {
		return "", err
	}
	if err := s.share(ctx); err != nil {
		return "", err
	}
	if s.euService, err = s.openIn(ctx, eu, euZone); err != nil {
		return "", err
	}
	if s.usService, err = s.openIn(ctx, us, usZone); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s at %s (eu/%s) and %s at %s (us/%s), each with an X509-SVID of %s from the agent of "+
		"its node and a lease of %s in its own cluster, which exports it to the other",
		eu.id, s.euService.address, euZone, us.id, s.usService.address, usZone, svidTTL, leaseTTL), nil
}

func (s *story) openIn(ctx context.Context, identity *workload, zone string) (*service, error) {
	return s.open(ctx, identity, zone, s.euCaller.id, s.usCaller.id)
}

func (s *story) callNear(ctx context.Context) (string, error) {
	list, err := watchHint(ctx, s.eu, callerZone, nil, func(list []choice) bool { return len(list) == 2 })
	if err != nil {
		return "", err
	}
	if list[0].region != s.eu.name || list[1].region != s.us.name {
		return "", fmt.Errorf("the hint has %s first, and then %s", list[0], list[1])
	}
	if _, err := s.euCaller.call(ctx, list[0].address, list[0].id); err != nil {
		return "", err
	}
	return fmt.Sprintf("priority 0 is %s, priority 1 %s; the near one responded over mutual TLS", list[0], list[1]), nil
}

func (s *story) cross(ctx context.Context) (string, error) {
	opened := make(chan struct{})
	var moved []choice
	watching, watchCtx := errgroup.WithContext(ctx)
	watching.Go(func() (err error) {
		moved, err = watchHint(watchCtx, s.eu, callerZone, func() { close(opened) }, func(list []choice) bool {
			return len(list) == 1 && list[0].region == s.us.name
		})
		return err
	})
	select {
	case <-opened:
	case <-watchCtx.Done():
		return "", watching.Wait()
	}
	start := time.Now()
	if err := s.euService.withdraw(ctx); err != nil {
		return "", err
	}
	if err := watching.Wait(); err != nil {
		return "", err
	}
	took := time.Since(start)
	seen, err := s.euCaller.call(ctx, moved[0].address, moved[0].id)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(
		"the watched hint moved %d ms after the withdrawal; %s called %s: eu verified it by root %s "+
			"of %s, us verified the caller by root %s of %s",
		took.Milliseconds(),
		s.euCaller.id,
		moved[0].id,
		short(seen.serverAnchor),
		s.us.domain.Name(),
		short(seen.callerAnchor),
		s.eu.domain.Name(),
	), nil
}

func (s *story) comeBack(ctx context.Context) (string, error) {
	var err error
	if s.euService, err = s.openIn(ctx, s.euService.workload, euZone); err != nil {
		return "", err
	}
	list, err := watchHint(ctx, s.eu, callerZone, nil, func(list []choice) bool {
		return len(list) == 2 && list[0].address == s.euService.address
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("priority 0 is %s again", list[0]), nil
}

// activeRoots returns the key IDs of the roots above the active X.509 authorities of a region, by member.
func activeRoots(ctx context.Context, r *region) (map[string]string, error) {
	answer, err := r.conn.Authorities().
		ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{TrustDomain: r.domain.Name()})
	if err != nil {
		return nil, fmt.Errorf("list the authorities of %s: %w", r.domain.Name(), err)
	}
	roots := make(map[string]string)
	for _, a := range answer.GetAuthorities() {
		if a.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_X509 &&
			a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
			roots[a.GetMember()] = a.GetKeyId()
		}
	}
	return roots, nil
}

// awaitRoots waits until every member of a region signs below a root that old does not hold.
func awaitRoots(ctx context.Context, r *region, old map[string]bool) (roots map[string]string, err error) {
	err = poll(ctx, nil, func(ctx context.Context) (bool, error) {
		if roots, err = activeRoots(ctx, r); err != nil {
			return false, err
		}
		for _, root := range roots {
			if old[root] {
				return false, nil
			}
		}
		return len(roots) == len(r.members), nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait until every member of %s signs below a new root: %w", r.name, err)
	}
	return roots, nil
}

func (s *story) rotate(ctx context.Context) (string, error) {
	before, err := awaitRoots(ctx, s.us, nil)
	if err != nil {
		return "", err
	}
	old := make(map[string]bool)
	for _, root := range before {
		old[root] = true
	}
	s.traffic = s.keepCalling(
		route{s.euCaller, s.usService.address, s.usService.id}, route{s.usCaller, s.euService.address, s.euService.id},
	)
	mark, start := s.traffic.mark(), time.Now()
	_, err = s.us.conn.Authorities().
		RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{TrustDomain: s.us.domain.Name(), Anchors: true})
	if err != nil {
		return "", fmt.Errorf("rotate the roots of us: %w", err)
	}
	if _, err := awaitRoots(ctx, s.us, old); err != nil {
		return "", err
	}
	signing := time.Since(start)
	for _, p := range []*workload{s.usService.workload, s.usCaller} {
		err := poll(ctx, nil, func(context.Context) (bool, error) {
			root, err := p.ownAnchor()
			return !old[root], err
		})
		if err != nil {
			return "", fmt.Errorf("wait until %s has an SVID below a new root: %w", p.id, err)
		}
	}
	there, err := s.euCaller.call(ctx, s.usService.address, s.usService.id)
	if err != nil {
		return "", err
	}
	back, err := s.usCaller.call(ctx, s.euService.address, s.euService.id)
	if err != nil {
		return "", err
	}
	if old[there.serverAnchor] || old[back.callerAnchor] {
		return "", errors.New("after the rotation a call was still verified by an old root")
	}
	calls, err := s.traffic.since(mark)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("new roots signed after %.1f s, and eu verifies us by them (%s, %s) in both directions; %d "+
		"calls meanwhile, none failed",
		signing.Seconds(), short(there.serverAnchor), short(back.callerAnchor), calls), nil
}
