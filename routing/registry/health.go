package registry

import (
	"context"
	"fmt"
	"strings"

	"github.com/ententehq/entente/access/audit"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

const (
	// maxHealthChanges bounds one message of a holder, so that its changes fit into one transaction.
	maxHealthChanges = 1000
	// loggedChanges is how many changes of health one line of the audit log lists.
	loggedChanges = 20
)

// healthChange is a change of an instance's health that the holder of its lease reports.
type healthChange struct {
	service, address string
	health           plan.Health
}

func parseHealthChanges(list []*ententev1.HealthChange) ([]healthChange, error) {
	if len(list) > maxHealthChanges {
		return nil, fmt.Errorf("%w: %d changes of health in one message; %d are allowed, send the rest in the next",
			errInstance, len(list), maxHealthChanges)
	}
	changes := make([]healthChange, 0, len(list))
	for i, c := range list {
		if err := plan.CheckServiceName(c.GetService()); err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		address, err := plan.ParseAddress(c.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		health, err := healthFromProto(c.GetHealth(), 0)
		if err == nil && health == 0 {
			err = fmt.Errorf("%w: it has no health", errInstance)
		}
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		changes = append(changes, healthChange{c.GetService(), address.String(), health})
	}
	return changes, nil
}

// changeHealth writes the changes of one message in one transaction. A lease that has run out is held again.
func (k *LeaseKeeper) changeHealth(ctx context.Context, h holder, changes []healthChange) (raftstore.Revision, error) {
	if len(changes) == 0 {
		return k.writeHealth(ctx, h, changes)
	}
	var revision raftstore.Revision
	err := audit.Do(k.audit, audit.Event{
		Caller: access.CallerFrom(ctx).String(), Action: "RoutingService/KeepLease health", Object: "lease " + h.lease,
		Detail: healthChangesText(changes),
	}, func(line *audit.Event) (err error) {
		revision, err = k.writeHealth(ctx, h, changes)
		line.Revision = uint64(revision)
		return err
	})
	return revision, err
}

func (k *LeaseKeeper) writeHealth(ctx context.Context, h holder, changes []healthChange) (raftstore.Revision, error) {
	return k.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, err := heldLease(tx, h)
		if err != nil {
			return err
		}
		if row.Value.GetExpireTime() != nil {
			revive(row.Value)
			if err := Leases.Put(tx, h.lease, row.Value); err != nil {
				return err
			}
		}
		for _, c := range changes {
			if err := c.write(ctx, tx, h.lease); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c healthChange) write(ctx context.Context, tx *raftstore.Tx, lease string) error {
	of := set{c.service, lease}
	generation, err := of.generation(tx)
	if err != nil {
		return err
	}
	key := of.in(generation) + c.address
	row, found, err := Instances.Get(tx, key)
	if err != nil {
		return err
	}
	if !found {
		return status.Errorf(codes.FailedPrecondition,
			"the lease has no instance of %s at %s; register it before you report its health", c.service, c.address)
	}
	i, err := fromRow(row)
	if err != nil {
		return err
	}
	if err := access.PermitsInstance(ctx, tx, access.RegistersInstance, c.service, i.ID); err != nil {
		return err
	}
	if i.Reported == c.health {
		return nil
	}
	row.Value.Health = uint32(c.health)
	row.Value.Generation = raftstore.NextGeneration(tx, row.Value.GetGeneration())
	return Instances.Put(tx, key, row.Value)
}

func healthChangesText(changes []healthChange) string {
	var parts []string
	for _, c := range changes[:min(len(changes), loggedChanges)] {
		parts = append(parts, fmt.Sprintf("%s %s %s", c.service, c.address, c.health))
	}
	if more := len(changes) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}
