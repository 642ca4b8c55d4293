package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
)

// same keeps what is stored if the configuration has the same value in other words.
type same struct{ is func(a, b string) bool }

const sameText = "values that are written differently and mean the same make no change"

func (s same) Description(context.Context) string         { return sameText }
func (s same) MarkdownDescription(context.Context) string { return sameText }

// PlanModifyString implements planmodifier.String.
func (s same) PlanModifyString(_ context.Context, r planmodifier.StringRequest, w *planmodifier.StringResponse) {
	if r.StateValue.IsNull() || r.ConfigValue.IsNull() || r.ConfigValue.IsUnknown() {
		return
	}
	if s.is(r.StateValue.ValueString(), r.ConfigValue.ValueString()) {
		w.PlanValue = r.StateValue
	}
}

// sameDuration reports whether two texts are the same duration, as 60s and 1m are.
func sameDuration(a, b string) bool {
	one, errOne := time.ParseDuration(a)
	two, errTwo := time.ParseDuration(b)
	return errOne == nil && errTwo == nil && one == two
}

// sameContent reports whether two documents are the same JSON value, or the same PEM blocks.
func sameContent(a, b string) bool {
	if one, ok := canonical(a); ok {
		two, same := canonical(b)
		return same && one == two
	}
	one, two := blocks(a), blocks(b)
	return len(one) > 0 && bytes.Equal(one, two)
}

// canonical returns a JSON document with its members in one order and without space.
func canonical(text string) (string, bool) {
	var value any
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	if decoder.Decode(&value) != nil || decoder.More() {
		return "", false
	}
	out, err := json.Marshal(value)
	return string(out), err == nil
}

// blocks returns the PEM blocks of a text, without what stands between them.
func blocks(text string) (all []byte) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
}
