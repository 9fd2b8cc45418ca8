"""An approved bundle in, the model that serves out: BentoML's stores, the pointer, deploy and roll back."""
