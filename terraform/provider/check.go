package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
)

// check is a rule of the server on a text, applied when Terraform plans. An unknown value is not checked.
type check struct {
	// of returns why a text is refused, and what to write.
	of func(string) error
	// what is what the attribute has to be.
	what string
}

func (c check) Description(context.Context) string         { return c.what }
func (c check) MarkdownDescription(context.Context) string { return c.what }

// ValidateString implements validator.String.
func (c check) ValidateString(_ context.Context, r validator.StringRequest, w *validator.StringResponse) {
	if r.ConfigValue.IsNull() || r.ConfigValue.IsUnknown() {
		return
	}
	if err := c.of(r.ConfigValue.ValueString()); err != nil {
		w.Diagnostics.AddAttributeError(r.Path, "The value is refused: it is not "+c.what, err.Error()+".")
	}
}

// eachText applies checks to the elements of a list.
func eachText(checks []validator.String) []validator.List {
	if len(checks) == 0 {
		return nil
	}
	return []validator.List{listvalidator.ValueStringsAre(checks...)}
}
