package commit

import (
	"errors"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// Decode decodes a command of another member, and refuses one that Apply could not process.
func Decode(raw []byte) (*statev1.Command, error) {
	if len(raw) > machine.MaxCommand {
		return nil, errors.New("the command is larger than 512 KiB")
	}
	if _, err := machine.CheckSeal(raw); err != nil {
		return nil, err
	}
	c := &statev1.Command{}
	if err := proto.Unmarshal(raw, c); err != nil {
		return nil, errors.New("the command does not decode")
	}
	return c, Check(c)
}

// Check refuses a command that Apply could not process. The leader checks what others send it, and every member what it
// sends, so that a mistake fails at all members alike, and not only at those that do not lead.
func Check(c *statev1.Command) error {
	id := c.GetId()
	switch {
	case len(id.GetMember()) > row.MaxTable+row.MaxKey:
		return errors.New("the command's member ID is too long")
	case id.GetMember() == "" || id.GetIncarnation() == 0 || id.GetCounter() == 0:
		return errors.New("the command has no ID")
	case c.GetSettled() > id.GetCounter():
		return errors.New("the command settles commands that come after it")
	case c.GetKind() == nil:
		return errors.New("the command is of a kind that this version does not know")
	}
	t := c.GetTransaction()
	for _, condition := range t.GetRows() {
		if err := row.Check(condition.GetTable(), condition.GetKey()); err != nil {
			return err
		}
	}
	for _, condition := range t.GetPrefixes() {
		if err := row.CheckTable(condition.GetTable()); err != nil {
			return err
		}
	}
	for _, change := range t.GetChanges() {
		if err := row.Check(change.GetTable(), change.GetKey()); err != nil {
			return err
		}
	}
	for _, staged := range c.GetRestoreChunk().GetRows() {
		if err := row.Check(staged.GetTable(), staged.GetKey()); err != nil {
			return err
		}
	}
	return nil
}
