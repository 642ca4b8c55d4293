package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

const (
	// maxUploaded bounds the instances of one upload, maxUploadPart those of one of its messages.
	maxUploaded   = 100000
	maxUploadPart = 4096
	// maxUploadedServices keeps the transaction that switches all of them within the size of a command.
	maxUploadedServices = 1000
	// listedErrors is how many of the rejected instances an error lists.
	listedErrors = 5
)

// upload is a replacement that a caller sends in several messages.
type upload struct {
	replacement
	// service is empty if all instances of the lease are replaced.
	service string

	received, rejected int
	errs               []string
	field              string // the first that was rejected, in its message
}

// newUpload starts the replacement that the first message of an upload describes.
func (p *Replacer) newUpload(ctx context.Context, target *ententev1.ReplaceTarget) (*upload, error) {
	u := &upload{
		replacement: replacement{
			Replacer: p, wanted: make(map[string]map[string]Instance), permits: make(map[permission]error),
			wholeLease: target.GetService() == "", check: func(raftstore.Reader) error { return nil },
		},
		service: target.GetService(),
	}
	secret, caller := target.GetLease(), access.CallerFrom(ctx)
	switch {
	case u.service == "" && secret == "":
		return nil, invalid(apierror.InField("target", errors.New(
			"the first message has to name what is replaced: set target.service, or target.lease for "+
				"all that a lease has, or both",
		)))
	case u.service != "":
		if err := plan.CheckServiceName(u.service); err != nil {
			return nil, invalid(apierror.InField("target.service", err))
		}
		u.wanted[u.service] = make(map[string]Instance)
	}
	if requested := target.GetEtag(); requested != "" {
		if u.service == "" || secret != "" {
			return nil, invalid(apierror.InField("target.etag", errors.New(
				"an etag is that of the instances of a service that have no lease: leave the lease or the etag out",
			)))
		}
		u.check = func(r raftstore.Reader) error {
			present, err := set{service: u.service}.etag(r)
			if err != nil {
				return err
			}
			return etag.Check(requested, "service "+u.service, present)
		}
	}
	if secret != "" {
		view, err := p.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
		if err != nil {
			return nil, err
		}
		row, err := ownedLease(view, secret, caller)
		if err != nil {
			return nil, err
		}
		u.lease = row.Key
		u.check = func(r raftstore.Reader) error {
			_, err := ownedLease(r, secret, caller)
			return err
		}
	}
	return u, nil
}

// add parses one message. Errors of instances are collected for the rejection; exceeding a bound ends the upload at
// once.
func (u *upload) add(ctx context.Context, list []*ententev1.Instance) error {
	if len(list) > maxUploadPart {
		return invalid(apierror.InField("instances", fmt.Errorf(
			"a message has %d instances, and %d are allowed: send the rest in further messages",
			len(list),
			maxUploadPart,
		)))
	}
	for _, m := range list {
		index := u.received
		if u.received++; u.received > maxUploaded {
			return status.Errorf(codes.ResourceExhausted,
				"the set has more than %d instances; replace it service by service", maxUploaded)
		}
		i, err := u.parse(ctx, m)
		if err != nil {
			if u.rejected == 0 {
				u.field = apierror.FieldOf(apierror.InField(fmt.Sprintf("instances[%d]", index), err))
			}
			if u.rejected++; u.rejected <= listedErrors {
				u.errs = append(u.errs, fmt.Sprintf("instance %d: %v", index, err))
			}
			continue
		}
		of := u.wanted[i.Service]
		if of == nil {
			if len(u.wanted) >= maxUploadedServices {
				return status.Errorf(codes.ResourceExhausted,
					"the set has more than %d services; replace it service by service", maxUploadedServices)
			}
			of = make(map[string]Instance)
			u.wanted[i.Service] = of
		}
		of[i.Address.String()] = i
	}
	return nil
}

func (u *upload) parse(ctx context.Context, m *ententev1.Instance) (Instance, error) {
	i, err := ParseInstance(m)
	if err != nil {
		return i, err
	}
	if u.service != "" && i.Service != u.service {
		return i, fmt.Errorf("it belongs to service %s, but service %s is replaced", i.Service, u.service)
	}
	if m.GetLease() != "" {
		return i, errors.New("it names a lease; the lease of all instances is that of the target")
	}
	if _, twice := u.wanted[i.Service][i.Address.String()]; twice {
		return i, fmt.Errorf("service %s has the address %s twice", i.Service, i.Address)
	}
	if err := u.permitted(ctx, u.store.View(), permission{access.RegistersInstance, i.Service, i.ID}); err != nil {
		return i, err
	}
	i.Lease, i.Registered = u.lease, u.now()
	return i, nil
}

// rejection returns an error that lists the instances which were rejected, or nil.
func (u *upload) rejection() error {
	if u.rejected == 0 {
		return nil
	}
	text := strings.Join(u.errs, "; ")
	if more := u.rejected - len(u.errs); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return invalid(apierror.InField(u.field, fmt.Errorf(
		"nothing was replaced, because %d of %d instances are rejected: %s", u.rejected, u.received, text)))
}

// run writes the differences in one transaction, or stages the sets that differ if they do not fit into one. The
// differences of a large upload are counted before: the transaction would otherwise compare everything only to find
// that they do not fit.
func (u *upload) run(ctx context.Context) (*ententev1.ReplaceInstancesResponse, error) {
	var done replaced
	view := u.store.View()
	differences, err := []difference(nil), raftstore.ErrTooLarge
	if u.received > maxInOneCommand {
		var failed error
		if differences, failed = u.compare(ctx, view); failed != nil {
			return nil, failed
		}
	}
	if countChanges(differences) <= maxInOneCommand {
		done, err = u.inPlace(ctx)
		view, differences = u.store.View(), nil
	}
	if errors.Is(err, raftstore.ErrTooLarge) {
		done, err = u.staged(ctx, view, differences)
	}
	if err != nil {
		return nil, err
	}
	response := &ententev1.ReplaceInstancesResponse{
		Revision: uint64(
			done.revision,
		), Added: uint32(done.added), Changed: uint32(done.changed), Removed: uint32(done.removed),
	}
	for _, list := range u.wanted {
		response.Instances += uint32(len(list))
		if len(list) > 0 {
			response.Services++
		}
	}
	response.Outranked, err = u.outranked()
	return response, err
}

// outranked counts the uploaded instances that do not count, because another registration has their address.
func (u *upload) outranked() (n uint32, _ error) {
	view := u.store.View()
	for name := range u.wanted {
		service, err := u.catalog.Service(view, name)
		if err != nil {
			return 0, err
		}
		for _, i := range service.Instances {
			if i.Outranked && i.Lease == u.lease {
				n++
			}
		}
	}
	return n, nil
}
