"""Using trained models: embedding images, searching and exporting."""
